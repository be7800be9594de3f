"""The command line: what each verb prints, in which form, with which exit code."""

import json
import os
import re
import subprocess
import sys

import jsonschema
import pytest
import yaml

from convrun import __version__
from convrun.cli import app
from convrun.recipe import shipped_recipes

VERBS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Each test stands in a folder without recipes and plugins."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_arguments_the_verbs_are_shown(convrun):
    code, out, err = convrun()
    assert code == 2
    for verb in VERBS:
        assert re.search(rf"^  {verb}  ", out + err, re.MULTILINE), verb


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_text_has_an_example_of_its_verb(convrun, verb):
    code, out, _ = convrun(verb, "--help")
    assert code == 0
    assert "Example" in out
    assert f"convrun {verb}" in " ".join(out.split("Example")[1].split())


def test_the_version_is_printed(convrun):
    assert convrun("--version") == (0, f"convrun {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explode"], "No such command 'explode'"),
        (["validate", "--nonsense", "digits_demo"], "No such option: --nonsense"),
        (["validate", "digits_demo", "--format", "xml"], "'xml' is not one of 'text', 'json'"),
        (["validate", "digits_demo", "--processes", "0"], "Invalid value for '--processes'"),
        (["run", "digits_demo", "--resume", "maybe"], "'maybe' is not one of 'auto', 'never', 'must'"),
        (["list", "nothing"], "'nothing' is not one of"),
        (["describe"], "Missing argument 'name'"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_with_its_reason(convrun, arguments, message):
    code, out, err = convrun(*arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("train", "run"), ("trian", "run"), ("rnu", "run"), ("resume", "run"), ("Run", "run"), ("check", "validate"),
        ("valdate", "validate"), ("ls", "list"), ("lst", "list"), ("ps", "status"), ("stop", "cancel"), ("log", "logs"),
        ("new", "copy"), ("submit", "launch"), ("recipes", "list recipes"), ("help", "--help"),
    ],
)  # fmt: skip
def test_an_unknown_verb_gets_the_one_that_means_the_same_or_was_misspelt(convrun, word, meant):
    assert convrun(word, "digits_demo")[2].endswith(
        f"Error: No such command {word!r}. Did you mean 'convrun {meant}'?\n"
    )


@pytest.mark.parametrize(
    "word", ["evaluate", "eval", "export", "predict", "test", "report", "preview", "bench", "tain", "x"]
)
def test_an_unknown_verb_that_no_verb_means_gets_no_suggestion(convrun, word):
    code, _, err = convrun(word)
    assert (code, err.splitlines()[-1]) == (2, f"Error: No such command {word!r}.")


def test_every_verb_that_is_suggested_is_there():
    from convrun.verbs.synonyms import SYNONYMS

    words = [word for words in SYNONYMS.values() for word in words.split()]
    assert not {verb.split()[0] for verb in SYNONYMS} - {*VERBS, "--help", "--version"}
    assert not set(words) & set(VERBS)
    assert len(set(words)) == len(words)


# Recipes that are not there


@pytest.mark.parametrize("verb", ["run", "validate", "show"])
def test_a_missing_recipe_is_exit_code_2_and_names_the_nearest(convrun, verb):
    code, out, err = convrun(verb, "digits_dem")
    assert (code, out) == (2, "")
    assert err.startswith(
        "error: there is no file digits_dem and no shipped recipe of that name; did you mean digits_de"
    )


@pytest.mark.parametrize("verb", ["run", "validate", "show"])
def test_without_a_recipe_it_is_the_working_folders(convrun, verb, empty_folder):
    assert convrun(verb)[0] == 2
    (empty_folder / "recipe.yaml").write_text("extends: digits_demo\nname: [\n")
    code, _, err = convrun(verb)
    assert (code, err.split(":")[0]) == (2, "recipe.yaml")


def test_an_override_alone_is_laid_over_the_working_folders_recipe(convrun, empty_folder):
    (empty_folder / "recipe.yaml").write_text("extends: digits_demo\nname: here\n")
    code, out, _ = convrun("show", "seed=7", "--format", "json")
    assert (code, json.loads(out)["name"], json.loads(out)["seed"]) == (0, "here", 7)


@pytest.mark.parametrize("verb", ["run", "show"])
def test_a_verb_of_one_recipe_takes_one(convrun, verb):
    code, _, err = convrun(verb, "digits_demo", "convnext_tiny_in1k")
    assert (code, err) == (
        2,
        "error: one recipe at a time, got digits_demo, convnext_tiny_in1k; an override is KEY=VALUE\n",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad.yaml: is empty, but a recipe is a map of keys; convrun copy makes a start"),
        (b"- a\n", "bad.yaml: holds a list, but a recipe is a map of keys; convrun copy makes a start"),
        (b"name: [x\n", "bad.yaml:2:1: not YAML: did not find expected ',' or ']' (while parsing a flow sequence)"),
        (b"name: caf\xe9\n", "bad.yaml:1:1: byte 9 is not UTF-8; save the file as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00", "bad.yaml:1:1: byte 0 is not UTF-8; save the file as UTF-8"),
        (b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 106)),
         "bad.yaml:5:11: more than 20,000 values, aliases counted each time; write them out, or fewer"),
        (b"extends: bad\n", "bad.yaml:1:10: extends: the recipe extends itself: bad.yaml -> bad.yaml"),
        (b"a: 1\na: 2\n", "bad.yaml:2:1: a: is given twice, first on line 1; keep one"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["run", "validate", "show"])
def test_a_file_that_is_no_recipe_is_exit_code_2_and_one_message(convrun, empty_folder, verb, content, message):
    (empty_folder / "bad.yaml").write_bytes(content)
    code, out, err = convrun(verb, "bad.yaml")
    assert (code, out, err.splitlines()[0]) == (2, "", message)
    assert err.splitlines()[-1].endswith("1 problem")
    assert [path.name for path in empty_folder.iterdir()] == ["bad.yaml"], "nothing was written"


# validate


def test_a_good_recipe_prints_its_plan(convrun):
    code, out, err = convrun("validate", "convnext_tiny_in1k", "--processes", "32")
    assert (code, err) == (0, "")
    assert "32 processes × micro-batch 128 × accumulation 1 = 4,096 images" in out
    assert "300 epochs × 312 steps = 93,600 steps, 3,215 images left out of each" in out
    assert "6,240 warm-up steps from 0, peak 0.004, final 1e-06" in out


def test_good_and_bad_recipes_together_are_each_told(convrun):
    code, out, err = convrun("validate", "digits_demo", "nowhere", "convnext_tiny_in1k", "training.micro_batch=7")
    assert code == 2
    assert out == ""
    assert err.count("training.micro_batch: 7 does not divide") == 2
    assert "there is no file nowhere" in err
    code, out, err = convrun("validate", "digits_demo", "nowhere")
    assert (code, out.split()[:2]) == (2, ["recipe", "digits_demo:"])
    assert "there is no file nowhere" in err


def test_validate_as_json_gives_a_report_for_each_recipe(convrun):
    code, out, err = convrun("validate", "digits_demo", "nowhere", "--format", "json")
    good, missing = json.loads(out)
    assert (code, err) == (2, "")
    assert (good["valid"], good["plan"]["total_steps"], missing["valid"]) == (True, 30 * (1438 // 64), False)
    _, out, _ = convrun("validate", "digits_demo", "optimizer.lrr=1", "--format", "json")
    assert json.loads(out)[0]["problems"] == [
        {"place": "override:1:1", "key": "optimizer.lrr", "message": "unknown key", "cure": "did you mean lr?"}
    ]


def test_data_that_are_missing_are_exit_code_1(convrun):
    code, out, err = convrun("validate", "digits_demo", "data={name: image_folder, root: nowhere}")
    assert (code, out) == (1, "")
    assert "nowhere" in err
    assert "Traceback" not in err


def test_build_and_data_are_told_as_text_and_as_json(convrun):
    code, out, _ = convrun("validate", "digits_demo", "--build", "--data")
    assert code == 0
    assert re.search(r"^built +383,114 parameters .* GMACs an image at 8$", out, re.MULTILINE)
    assert re.search(r"^opened +train: 1,438 images of 10 classes .* 8 × 8 and 8 × 8$", out, re.MULTILINE)
    (report,) = json.loads(convrun("validate", "digits_demo", "--build", "--data", "--format", "json")[1])
    assert report["model"]["parameters"] == report["plan"]["parameters"] == 383_114
    assert (report["data"]["train"]["images"], report["data"]["val"]["images"]) == (1438, 359)


@pytest.mark.parametrize("recipe", ["digits_demo", "convnext_tiny_in1k", "nowhere", "broken.yaml", "data.yaml"])
def test_the_quick_path_and_typers_print_the_same(convrun, empty_folder, recipe):
    (empty_folder / "broken.yaml").write_text("extends: digits_demo\nmodle: x\ntraining: {epochs: 0}\n")
    (empty_folder / "data.yaml").write_text("extends: digits_demo\ndata: {name: image_folder, root: nowhere}\n")
    quick = convrun("validate", recipe, "seed=1")
    assert quick == convrun("validate", "--format", "text", recipe, "seed=1")
    assert quick[0] == {"nowhere": 2, "broken.yaml": 2, "data.yaml": 1}.get(recipe, 0)


# list, describe, show, copy, schema


def test_components_are_listed_with_kind_origin_and_one_line(convrun):
    code, out, _ = convrun("list", "components", "convnext_t*")
    header, row = out.splitlines()
    assert (code, header.split()) == (0, ["name", "kind", "origin", "summary"])
    assert row.split()[:3] == ["convnext_tiny", "model", "convrun"]
    rows = json.loads(convrun("list", "components", "--kind", "scheduler", "--format", "json")[1])
    assert {"cosine", "linear", "step", "constant"} <= {row["name"] for row in rows}
    assert all(list(row) == ["name", "kind", "origin", "summary"] for row in rows)


def test_recipes_are_listed(convrun):
    rows = {row["name"]: row for row in json.loads(convrun("list", "recipes", "--format", "json")[1])}
    assert set(rows) == set(shipped_recipes())
    tiny = rows["convnext_tiny_in1k"]
    assert (tiny["model"], tiny["batch"], tiny["epochs"], tiny["top-1"]) == (
        "convnext_tiny (28.6 M)",
        "4096",
        "300",
        "82.1",
    )
    assert [line.split()[0] for line in convrun("list", "recipes", "digits*")[1].splitlines()] == [
        "name",
        "digits_demo",
    ]


def test_a_pattern_without_a_match_says_so(convrun):
    assert convrun("list", "components", "qqq*")[:2] == (0, "nothing matches 'qqq*'\n")
    assert json.loads(convrun("list", "recipes", "qqq*", "--format", "json")[1]) == []


def test_an_unknown_kind_gets_the_nearest(convrun):
    assert convrun("list", "components", "--kind", "optimiser")[2] == (
        "error: there is no kind of component named optimiser; did you mean optimizer?\n"
    )


def test_a_component_is_described_by_kind_and_name_or_by_name(convrun):
    code, out, _ = convrun("describe", "optimizer/adamw")
    assert code == 0
    assert re.search(r"lr +float > 0 +required\n +peak learning rate", out)
    assert re.search(r"betas +\[float ≥ 0 and < 1, float ≥ 0 and < 1\] +default \[0\.9, 0\.999\]", out)
    assert re.search(r"defined in convrun \(.*optimizers\.py:\d+\)", out)
    assert convrun("describe", "adamw")[1] == out
    data = json.loads(convrun("describe", "adamw", "--format", "json")[1])
    assert [key["name"] for key in data["keys"] if key["required"]] == ["lr"]


def test_a_snippet_pastes_into_a_recipe(convrun, empty_folder):
    for name in (
        "optimizer/lion",
        "augmentation/random_erasing",
        "scheduler/linear",
        "logger/csv",
        "loss/cross_entropy",
    ):
        snippet = json.loads(convrun("describe", name, "--format", "json")[1])["snippet"].replace("...", "1e-3")
        (empty_folder / "mine.yaml").write_text(f"extends: digits_demo\n{snippet}\n")
        overrides = ["logging.to=[jsonl, csv]"] if "logger" in name else []
        assert convrun("validate", "mine.yaml", *overrides)[2] == "", snippet


def test_a_kind_is_described_with_its_contract(convrun):
    code, out, _ = convrun("describe", "augmentation")
    assert code == 0
    assert "register() also takes\n  place: 'image' or 'batch'" in out
    assert json.loads(convrun("describe", "augmentation", "--format", "json")[1])["section"] == "augmentations"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adamww", "there is no component adamww; did you mean adamw?"),
        ("optimizer/adamww", "no optimizer is named 'adamww'; did you mean"),
        (
            "timm/resnet50",
            "several kinds have a component timm/resnet50: model/timm/resnet50, optimizer/timm/resnet50; name one",
        ),
        ("model/nope/*", "no model is named 'nope/*'"),
        ("qqqq", "there is no component qqqq; convrun list components shows all"),
    ],
)
def test_what_cannot_be_described_gets_the_nearest(convrun, name, message):
    code, _, err = convrun("describe", name)
    assert (code, err[: 7 + len(message)]) == (2, f"error: {message}")


@pytest.mark.parametrize("name", ["timm/*", "model/timm/*", "model/timm/resnet50"])
def test_a_family_is_described(convrun, name):
    code, out, err = convrun("describe", name)
    assert code == (2 if name == "timm/*" else 0)
    assert "model/timm/" in out + err


def test_show_prints_a_recipe_that_loads_again(convrun, empty_folder):
    _, out, _ = convrun("show", "convnext_tiny_in1k", "seed=5")
    (empty_folder / "shown.yaml").write_text(out)
    assert convrun("show", "shown.yaml")[1] == out
    assert yaml.safe_load(out)["seed"] == 5
    assert json.loads(convrun("show", "shown.yaml", "--format", "json")[1])["seed"] == 5


def test_show_tells_where_each_value_came_from(convrun, empty_folder):
    (empty_folder / "mine.yaml").write_text("extends: digits_demo\nname: mine\n")
    _, out, _ = convrun("show", "mine.yaml", "optimizer.lr=1e-3", "--origin")
    origins = dict(line.split("  # ") for line in out.splitlines())
    told = {key.split(":")[0]: origin for key, origin in origins.items()}
    assert told["name"] == "mine.yaml:2:7"
    assert told["optimizer.lr"] == "override optimizer.lr=1e-3"
    assert re.search(r"digits_demo\.yaml:\d+:\d+$", told["model.depths"])
    assert told["optimizer.betas"] == "default"


def test_copy_gives_a_recipe_to_edit_and_overwrites_nothing(convrun, empty_folder):
    assert convrun("copy", "convnext_tiny_in1k", "mine.yaml") == (
        0, "mine.yaml: edit it, then convrun validate mine.yaml\n", "",
    )  # fmt: skip
    assert convrun("validate", "mine.yaml")[0] == 0
    before = (empty_folder / "mine.yaml").read_bytes()
    code, _, err = convrun("copy", "digits_demo", "mine.yaml")
    assert (code, err) == (2, "error: mine.yaml exists already; name another destination\n")
    assert (empty_folder / "mine.yaml").read_bytes() == before


def test_a_copy_that_cannot_be_written_is_the_worlds_fault(convrun):
    code, _, err = convrun("copy", "digits_demo", "no/such/folder/mine.yaml")
    assert (code, err) == (
        1, "error: no/such/folder/mine.yaml cannot be written: No such file or directory; name another destination\n",
    )  # fmt: skip


def test_schema_prints_a_schema(convrun):
    code, out, _ = convrun("schema")
    assert code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(out))


# Plugins


PLUGIN = """
from convrun.registry import register

@register("scheduler", "folded")
def folded(horizon):
    '''A schedule of the working folder.'''
    return lambda step: horizon.peak_lr
"""


@pytest.fixture
def plugins(empty_folder):
    (empty_folder / "plugins").mkdir()
    (empty_folder / "plugins" / "mine.py").write_text(PLUGIN)
    (empty_folder / "plugins" / "broken.py").write_text("import no_such_module\n")


def test_the_working_folders_plugins_are_listed_described_and_used(convrun, plugins):
    code, out, err = convrun("list", "components", "folded")
    assert (code, out.splitlines()[1].split()[:4]) == (0, ["folded", "scheduler", "plugin", "plugins/mine.py"])
    assert err == "plugin plugins/broken.py failed to import: ModuleNotFoundError: No module named 'no_such_module'\n"
    assert "A schedule of the working folder." in convrun("describe", "folded")[1]
    code, out, err = convrun("validate", "digits_demo", "scheduler=folded")
    assert (code, err) == (0, ""), "the broken one is not needed"
    assert re.search(r"^plugins +plugins/broken\.py, plugins/mine\.py$", out, re.MULTILINE)


def test_no_plugins_loads_none(convrun, plugins):
    for arguments in (["validate", "digits_demo"], ["show", "digits_demo"], ["describe", "cosine"], ["schema"]):
        code, out, _ = convrun(*arguments, "--no-plugins")
        assert (code, "folded" in out) == (0, False)
    code, _, err = convrun("validate", "digits_demo", "scheduler=folded", "--no-plugins")
    assert code == 2
    assert "no scheduler is named 'folded'" in err
    assert "plugins searched" not in err


def test_an_unknown_name_tells_of_the_plugin_that_failed(convrun, plugins):
    code, _, err = convrun("validate", "digits_demo", "scheduler=unfolded")
    assert code == 2
    assert "(plugins searched: plugins/broken.py, plugins/mine.py)" in err
    assert "(plugin plugins/broken.py failed to import: ModuleNotFoundError: No module named 'no_such_module')" in err


# As a process


def process(*arguments, **keys):
    return subprocess.Popen(
        [sys.executable, "-m", "convrun", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keys
    )


@pytest.mark.parametrize("arguments", [["validate", "digits_demo"], ["list", "components"], ["schema"]])
def test_a_reader_that_goes_away_leaves_no_traceback(arguments):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        running = subprocess.run(
            [sys.executable, "-m", "convrun", *arguments], stdout=nobody, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (running.returncode in (1, 141), running.stderr) == (True, "")


def test_closed_standard_streams_are_no_error():
    closed = subprocess.run(
        ["bash", "-c", '"$0" -m convrun validate digits_demo <&- >&- 2>&-', sys.executable], check=False
    )
    assert closed.returncode == 0


def test_a_terminal_that_knows_no_unicode_still_shows_the_plan():
    running = process("validate", "digits_demo", env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"})
    out, err = running.communicate()
    assert (running.returncode, err) == (0, "")
    assert r"micro-batch 64 \xd7 accumulation 1" in out or "micro-batch 64 × accumulation 1" in out


def test_an_argument_that_is_not_utf_8_is_told():
    running = process("validate", "digits_demo", b"summary=caf\xe9")
    _, err = running.communicate()
    assert running.returncode == 2
    assert "is not UTF-8" in err


def test_debug_shows_where_an_error_came_from(convrun):
    assert "Traceback" in convrun("show", "nowhere", "--debug")[2]
    assert "Traceback" not in convrun("show", "nowhere")[2]
