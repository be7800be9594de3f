"""What convrun says of its security (docs/security.md), a test for each statement: each shows that the attack works
where nothing stops it, and that here something does."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from convrun.data.sample import Images
from convrun.errors import CheckpointError, ConvrunError, DataError
from convrun.recipe import load_recipe
from convrun.recipe.problems import RecipeError
from convrun.run_folder import RunFolder, write_whole
from convrun.text.secrets import blotted, is_secret_name, masked
from tests.sealing import save_sealed, sealed

SECRET = "s3cr3t/with'quotes\\and-more"


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def mark(tmp_path):
    """The file that a payload makes when it runs."""
    return tmp_path / "ran"


@pytest.fixture
def payload(mark):
    """A pickle that works, as is seen first."""
    content = pickle.dumps(Payload(mark))
    pickle.loads(content)
    assert mark.exists()
    mark.unlink()
    return content


def torch_file(path, content):
    """A file of torch's with this content; it runs where nothing stops it."""
    torch.save(content, path)
    torch.load(path, weights_only=False)
    return path


# No file runs code.


@pytest.mark.parametrize("kind", ["a pickle", "torch's format", "torch's old format"])
def test_no_checkpoint_runs_code(kind, mark, payload, train, tmp_path):
    train()
    path = tmp_path / "run" / "checkpoints" / "step-16.pt"
    content = torch.load(path, weights_only=True) | {"extra": Payload(mark)}
    if kind == "a pickle":
        path.write_bytes(sealed(payload))
    else:
        save_sealed(content, path, _use_new_zipfile_serialization=kind == "torch's format")
        torch.load(path, weights_only=False)
        assert mark.exists()
        mark.unlink()
    from convrun import checkpoints

    with pytest.raises(CheckpointError):
        checkpoints.load(path)
    try:
        train()
    except ConvrunError as error:
        assert "step-16" in str(error)
    assert not mark.exists()


TAGGED = "!!python/object/apply:os.mkdir [{mark}]"


@pytest.mark.parametrize("place", ["a recipe", "an override", "the recipe of a run folder"])
def test_no_yaml_runs_code(place, mark, tiny_file, train, tmp_path):
    text = TAGGED.format(mark=mark)
    yaml.unsafe_load(text)
    assert mark.exists()
    mark.rmdir()
    if place == "the recipe of a run folder":
        train()
        (tmp_path / "run" / "recipe.yaml").write_text(f"name: {text}\n")
        with pytest.raises(ConvrunError, match=r"recipe\.yaml cannot be read"):
            train()
    else:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(tiny_file.read_text() + (f"notes: {text}\n" if place == "a recipe" else ""))
        with pytest.raises(RecipeError, match=r"tag .* is not allowed"):
            load_recipe(recipe, [f"notes={text}"] if place == "an override" else [], plugins=False)
    assert not mark.exists()


def opened(name, **keys):
    from convrun.registry import registry

    return registry.find("data", name).create("train", **keys)


def test_no_npz_file_runs_code(mark, tmp_path):
    evil = np.empty(1, object)
    evil[0] = Payload(mark)
    path = tmp_path / "x.npz"
    np.savez(path, train_images=evil, train_labels=evil)
    with np.load(path, allow_pickle=True) as file:
        file["train_images"]
    assert mark.exists()
    mark.unlink()
    with pytest.raises(DataError, match="pickled objects"):
        opened("npz", path=str(path))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_no_file_of_cifar_runs_code(name, mark, payload, tmp_path):
    from convrun.data.sets.cifar import READERS

    reader = READERS[name]
    for file, _ in [*reader.train_list, *reader.test_list, (reader.meta["filename"], "")]:
        path = tmp_path / reader.base_folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(payload)
    with pytest.raises(DataError, match="is not the published file"):
        opened(name, root=str(tmp_path))
    assert not mark.exists()


def test_no_archive_but_the_published_one_is_unpacked(tmp_path, monkeypatch):
    """Members may be called `../evil`; torchvision unpacks only what has the published MD5."""
    import tarfile

    def sent(_url, file, *_):
        with tarfile.open(file, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("../evil"))

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", sent)
    root = tmp_path / "data"
    with pytest.raises(DataError, match="cannot be downloaded"):
        opened("cifar10", root=str(root), download=True)
    assert not (tmp_path / "evil").exists()


def test_no_parquet_file_runs_code(mark, payload, tmp_path, monkeypatch):
    """Arrow's Python extension types are pickles in a column's metadata (CVE-2023-47248)."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    monkeypatch.setenv("CONVRUN_CACHE", str(tmp_path / "cache"))
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, "PNG")
    evil = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": payload}
    fields = [pa.field("image", pa.binary(), metadata=evil), pa.field("label", pa.int64(), metadata=evil)]
    table = pa.table([pa.array([png.getvalue()] * 2), pa.array([0, 1])], pa.schema(fields, metadata=evil))
    for split in ("train", "validation"):
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    for _ in range(2):  # from the file, and from the copy in the cache
        try:
            images = opened("parquet", root=str(tmp_path))
            Images(images, "train").load(0)
        except ConvrunError:
            pass
        assert not mark.exists()
        for copy in (tmp_path / "cache").rglob("*"):
            if copy.is_file():
                copy.write_bytes(payload)


def test_no_image_runs_code(tmp_path):
    """Pillow hands EPS, whatever the file's name, to Ghostscript, which runs the program in it."""
    import io

    from PIL import Image

    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(%pipe%id) (r) file\n"
    assert Image.open(io.BytesIO(eps)).format == "EPS"
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "1.jpg").write_bytes(eps)
    with pytest.raises((DataError, OSError, ValueError)):
        Images(opened("image_folder", root=str(tmp_path)), "train").load(0)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".npz", ".safetensors"])
@pytest.mark.parametrize("is_cached", [False, True], ids=["a file", "the cache of downloads"])
def test_no_weights_run_code(suffix, is_cached, mark, payload, train, tmp_path, monkeypatch):
    from convrun.weights.download import cached_path

    monkeypatch.setenv("CONVRUN_CACHE", str(tmp_path / "cache"))
    source = f"http://127.0.0.1:9/w{suffix}" if is_cached else str(tmp_path / f"w{suffix}")
    path = cached_path(source) if is_cached else Path(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix in (".pt", ".npz"):
        torch_file(path, {"model": {"x": torch.zeros(1)}, "args": Payload(mark)})
        mark.unlink()
    else:
        path.write_bytes(payload)
    with pytest.raises(CheckpointError):
        train(f"init.from={source}")
    assert not mark.exists()


def test_only_plugins_run_and_validate_lists_them(convrun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    installed = tmp_path / "installed"
    (installed / "lab_parts-1.0.dist-info").mkdir(parents=True)
    (installed / "lab_parts-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: lab-parts\nVersion: 1.0\n"
    )
    (installed / "lab_parts-1.0.dist-info" / "entry_points.txt").write_text("[convrun.plugins]\nlab = lab_parts\n")
    monkeypatch.syspath_prepend(str(installed))
    for name in ("plugins/of_the_folder.py", "of_the_recipe.py", "installed/lab_parts.py"):
        (tmp_path / name).write_text(f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'ran').touch()\n")
    (tmp_path / "recipe.yaml").write_text("extends: digits_demo\nplugins: [of_the_recipe.py]\n")
    code, out, _ = convrun("validate", "recipe.yaml", "--no-plugins")
    assert code == 0
    assert not (tmp_path / "ran").exists()
    assert f"plugins      none loaded (--no-plugins), though the recipe lists {tmp_path}/of_the_recipe.py" in out
    code, out, _ = convrun("validate", "recipe.yaml")
    assert code == 0
    assert (tmp_path / "ran").exists()
    (line,) = [line for line in out.splitlines() if line.startswith("plugins ")]
    assert "of_the_recipe.py" in line
    assert "plugins/of_the_folder.py" in line
    assert line.endswith(", lab")


def test_no_program_of_the_working_folders_repository_runs(tmp_path, monkeypatch):
    """A program that the repository names is asked by git what has changed, and a hook told that git has looked."""
    from convrun.run_folder.environment import add_start

    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*words):
        identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
        subprocess.run(["git", *identity, *words], check=True, capture_output=True)

    git("init", "-q")
    Path("code.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    evil = tmp_path / ".git" / "hooks" / "post-index-change"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    evil.chmod(0o755)
    git("config", "core.fsmonitor", str(evil))
    os.utime("code.py", (0, 0))  # git would note in its index that the file is as it was
    folder = RunFolder(tmp_path / "run")
    (tmp_path / "run").mkdir()
    add_start(folder, "CPU", [], 0)
    assert folder.read_json("environment.json")["starts"][0]["git_commit"]
    assert not (tmp_path / "ran").exists()
    git("status")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("verb", [["validate"], ["show"], ["show", "--origin"]])
def test_no_recipe_steers_the_terminal(verb, convrun, tiny_file):
    """What a recipe says of itself stands above the list of plugins that would run, and must not hide it."""
    steering = json.dumps("a\x1b[8mb\x9bc\rd")
    code, out, _ = convrun(*verb, tiny_file, f"summary={steering}", f"notes={steering}", "--no-plugins")
    assert code == 0
    assert "[8mb" in out
    assert all(c.isprintable() for c in out.replace("\n", ""))


# No name leads out of the run folder.


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "/etc", "..", ".", ".hidden", "-rf", "a\\b", "a:b", 'a"b', "a\nb", "a\x1b[2Jb", "a\rb", "a\x7fb",
     "a\u202eb", "a\u2028b", " a", "a ", "é" * 100 + "é", "字" * 70],
)  # fmt: skip
def test_a_name_that_is_no_plain_folder_name_is_refused(name, tiny_file, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(tiny_file.read_text().replace("name: tiny", f"name: {json.dumps(name)}"))
    with pytest.raises(RecipeError, match=r"name: .*(cannot name a folder|too long|at most 100)"):
        load_recipe(path, plugins=False)


def test_the_name_of_a_recipes_file_is_held_to_the_same_rule(tiny_file, tmp_path):
    path = tmp_path / "-rf.yaml"
    path.write_text(tiny_file.read_text().replace("name: tiny\n", ""))
    with pytest.raises(RecipeError, match="'-rf' cannot name a folder"):
        load_recipe(path, plugins=False)


def test_names_of_classes_name_no_file(train, tmp_path):
    arrays = {
        f"{split}_{what}": array
        for split in ("train", "val")
        for what, array in (("images", np.zeros((16, 8, 8, 3), np.uint8)), ("labels", np.arange(16) % 2))
    }
    np.savez(tmp_path / "x.npz", **arrays, class_names=np.array(["../../evil", "/tmp/e\nvil"]))
    train(f"data={{name: npz, path: {tmp_path / 'x.npz'}, workers: 0}}")
    assert {path.name for path in tmp_path.iterdir()} == {"x.npz", "run"}
    assert not [path for path in (tmp_path / "run").rglob("*") if "vil" in path.name]


def test_a_file_is_written_in_the_place_of_a_link_not_through_it(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").symlink_to(outside)
    import threading

    draft = f".recipe.yaml.{os.getpid()}-{threading.get_ident()}.draft"
    (folder / draft).symlink_to(outside)
    write_whole(folder / "recipe.yaml", b"name: x\n")
    assert outside.read_text() == "precious"
    assert not (folder / "recipe.yaml").is_symlink()


# Secrets of the environment stay there.


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("CONVRUN_TEST_TOKEN", SECRET)
    return "${env:CONVRUN_TEST_TOKEN}"


def files_with(folder, text):
    found = {text.encode(), json.dumps(text)[1:-1].encode(), repr(text)[1:-1].encode()}
    return [path for path in folder.rglob("*") if path.is_file() and any(f in path.read_bytes() for f in found)]


def test_a_variable_that_the_recipe_does_not_name_is_written_nowhere(train, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("ORDINARY", "an-ordinary-variable")
    train("logging.to=[console, jsonl, csv, tensorboard]")
    assert files_with(tmp_path, SECRET) == files_with(tmp_path, "an-ordinary-variable") == []


def test_a_secret_that_the_recipe_names_stays_a_reference_and_the_folder_runs_again(
    secret, tiny_file, tmp_path, monkeypatch, fresh_registry, capsys
):
    from convrun.registry import register
    from convrun.training.run import run

    handed = []

    @register("logger", "spy")
    class Spy:
        def __init__(self, info, *, api_key: str, tags: tuple[str, ...] = ()):
            handed.append((api_key, tags, info.recipe["logging"]["to"][1]["api_key"]))
            info.screen.say(f"connected with {api_key}")

        def log(self, row):
            pass

        def close(self):
            pass

    path = tmp_path / "recipe.yaml"
    path.write_text(
        tiny_file.read_text().replace(
            "to: [jsonl]", f'to: [jsonl, {{name: spy, api_key: "{secret}", tags: ["x-{secret}"]}}]'
        )
        + f'notes: "by {secret}"\n'
    )
    folder = tmp_path / "run"
    monkeypatch.setattr(
        sys, "argv", ["convrun", "run", f"notes={SECRET}", "init.from=https://me:word@host/x?token=abc"]
    )
    outcome = run(load_recipe(path, plugins=False), folder, device="cpu")
    assert handed == [(SECRET, (f"x-{SECRET}",), secret)]
    assert files_with(folder, SECRET) == []
    assert SECRET not in capsys.readouterr().out
    (start,) = json.loads((folder / "environment.json").read_text())["starts"]
    assert start["command"][2:] == [f"notes={secret}", "init.from=https://***@host/x?token=***"]
    assert f'"api_key": "{secret}"' in (folder / "plan.json").read_text()
    again = run(load_recipe(folder / "recipe.yaml", plugins=False), folder, device="cpu")
    assert (again.was_finished, again.step) == (True, outcome.step)
    # With another value it is the same recipe; without one, it says which is missing.
    monkeypatch.setenv("CONVRUN_TEST_TOKEN", "another-value")
    assert run(load_recipe(folder / "recipe.yaml", plugins=False), folder, device="cpu").was_finished
    monkeypatch.delenv("CONVRUN_TEST_TOKEN")
    with pytest.raises(RecipeError, match="the environment variable CONVRUN_TEST_TOKEN is not set"):
        load_recipe(folder / "recipe.yaml", plugins=False)


@pytest.mark.parametrize("value", ["12345678", "true", "null", "0x1f", "1e9"])
def test_a_secret_that_looks_like_another_type_comes_back_as_text(value, tiny_file, tmp_path, monkeypatch):
    from convrun.recipe.writing import recipe_yaml

    monkeypatch.setenv("CONVRUN_TEST_TOKEN", value)
    first = load_recipe(tiny_file, ["notes='${env:CONVRUN_TEST_TOKEN}'"], plugins=False)
    path = tmp_path / "tiny.yaml"
    path.write_text(recipe_yaml(first))
    assert load_recipe(path, plugins=False).notes == first.notes == value


def test_an_ordinary_variable_is_resolved_as_ever(tiny, monkeypatch):
    monkeypatch.setenv("DATA_DIR", "/data/of/mine")
    assert tiny("notes='${env:DATA_DIR}'").resolved()["notes"] == "/data/of/mine"


@pytest.mark.parametrize(
    "override",
    ["optimizer.lr=${env:CONVRUN_TEST_TOKEN}", f"optimizer.lr={SECRET}", f"data.{SECRET}=1", f"scheduler={SECRET}",
     "model.name=${env:CONVRUN_TEST_TOKEN}", "data={name: npz, path: '${env:CONVRUN_TEST_TOKEN}'}",
     f"notes=[{SECRET}", f"name='{'x' * 50}/${{env:CONVRUN_TEST_TOKEN}}'"],
)  # fmt: skip
@pytest.mark.parametrize("verb", [["validate"], ["validate", "--format", "json"], ["--debug", "run"]])
def test_no_error_shows_a_secret(verb, override, secret, convrun, tiny_file):
    code, out, err = convrun(*verb, tiny_file, override, "--no-plugins")
    assert code in (1, 2)
    for part in (SECRET, repr(SECRET)[1:-1], json.dumps(SECRET)[1:-1], SECRET[:9]):
        assert part not in out + err


@pytest.mark.parametrize("arguments", [["show"], ["show", "--origin"], ["show", "--format", "json"], ["validate"]])
def test_no_verb_shows_a_secret(arguments, secret, convrun, tiny_file):
    code, out, err = convrun(*arguments, tiny_file, f"notes={secret}", "--no-plugins")
    assert code == 0
    assert SECRET not in out + err
    assert secret in out


@pytest.mark.parametrize(
    ("name", "expected"),
    [("HF_TOKEN", True), ("WANDB_API_KEY", True), ("AWS_SECRET_ACCESS_KEY", True), ("DB_PASSWORD", True),
     ("PGPASSWORD", True), ("apikey", True), ("GITHUB_PAT", True), ("GOOGLE_CREDENTIALS", True), ("MYTOKEN", True),
     ("SLURM_JWT", True), ("TOKENIZERS_PARALLELISM", False), ("PATH", False), ("PWD", False), ("MONKEY", False),
     ("KEYBOARD", False), ("IMAGENET_DIR", False), ("COMPASS", False)],
)  # fmt: skip
def test_which_names_are_those_of_secrets(name, expected):
    assert is_secret_name(name) is expected


def test_masking_leaves_all_else_alone():
    env = {"A_TOKEN": "abcdef", "B_TOKEN": "abcdefgh", "SHORT_KEY": "true", "PLAIN": "plainvalue"}
    data = {"x": ["abcdefgh abcdef", 1, None, ("true",)], "plainvalue": "plainvalue"}
    assert masked(data, env) == {
        "x": ["${env:B_TOKEN} ${env:A_TOKEN}", 1, None, ["true"]],
        "plainvalue": "plainvalue",
    }
    assert blotted("lr=abcdef, x", env) == "lr=******, x"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a/b.pt", "https://host/a/b.pt"),
        ("see https://u:p@host:80/a, or s3://k:v@b/c", "see https://***@host:80/a, or s3://***@b/c"),
        ("https://h/x?a=1&X-Amz-Signature=ab%2F&b=2#f", "https://h/x?a=1&X-Amz-Signature=***&b=2#f"),
        ("https://h/x?access_token=abc", "https://h/x?access_token=***"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_secrets_of_urls_are_masked(url, shown):
    assert masked(url, {}) == shown


def test_nothing_that_is_left_open_by_a_link_of_somebody_else_is_written(tmp_path, monkeypatch):
    """Anybody who may write in a shared run folder may put a link there; the run does not follow it."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    folder = RunFolder(tmp_path / "run")
    with folder.opened():
        folder.write("recipe.yaml", "name: x\n")
    (folder.path / "train.log").symlink_to(outside)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConvrunError, match="is a link that belongs to another user"):
        folder.opened().__enter__()
    assert outside.read_text() == "precious"
