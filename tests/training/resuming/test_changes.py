import json
import re
import shlex
import signal
from pathlib import Path

import pytest
import yaml

from convrun import checkpoints
from convrun.errors import CheckpointError, Preempted, RunFolderError
from convrun.recipe import load_recipe
from convrun.run_folder import RunFolder
from convrun.run_folder.environment import add_start
from convrun.training.resuming.changes import check_same_data, check_unchanged, drop_what_changed
from convrun.training.run import run


@pytest.fixture
def began(tiny, tmp_path):
    """A folder in which the tiny recipe began, as far as `check_unchanged` looks."""
    folder = RunFolder(tmp_path)
    folder.recipe.write_text(yaml.safe_dump(tiny().resolved()))
    return folder


@pytest.fixture
def stopped(train, tmp_path):
    """A run that was stopped after step 6."""
    with pytest.raises(Preempted):
        train(at={6: lambda: signal.raise_signal(signal.SIGTERM)})
    return tmp_path / "run"


def test_the_same_recipe_goes_on(began, tiny):
    assert check_unchanged(began, tiny(), []) == []


@pytest.mark.parametrize(
    "free",
    ["name=other", "summary=x", "notes=x", "data.workers=2", "data.prefetch=7", "checkpoints.every_steps=1",
     "checkpoints.keep.last=5", "logging.to=[jsonl, csv]", "training.stop_after=11h30m"],
)  # fmt: skip
def test_what_changes_no_number_is_free(free, began, tiny):
    assert check_unchanged(began, tiny(free), []) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr: 0.02 before, 0.001 now"),
        ("seed=4", "seed: 3 before, 4 now"),
        ("data.num_classes=4", "data.num_classes: 3 before, 4 now"),
        ("logging.every_steps=1", "logging.every_steps: 3 before, 1 now"),
        ("model.dims=[8, 8, 8, 8]", r"model.dims: \[4, 8, 8, 8\] before, \[8, 8, 8, 8\] now"),
        ("training.clip_grad_norm=null", "training.clip_grad_norm: 1.0 before, None now"),
        ("callbacks=[]", "callbacks: .* before, None now"),
    ],
)
def test_any_other_change_is_refused_with_the_difference_and_the_cure(change, line, began, tiny):
    key = line.split(":")[0]
    with pytest.raises(
        RunFolderError, match=rf"not the one that the run in .* began with:\n  {line}\n.*--allow-change {key}"
    ):
        check_unchanged(began, tiny(change), [])


def test_every_difference_is_told_at_once(began, tiny):
    with pytest.raises(
        RunFolderError, match=r"(?s)optimizer\.lr.*seed: 3.*--allow-change optimizer\.lr --allow-change seed"
    ):
        check_unchanged(began, tiny("optimizer.lr=1e-3", "seed=4"), [])


def test_an_allowed_change_is_returned(began, tiny):
    assert check_unchanged(began, tiny("optimizer.lr=1e-3"), ["optimizer.lr"]) == [("optimizer.lr", 0.02, 0.001)]
    assert check_unchanged(began, tiny("optimizer.lr=1e-3"), ["optimizer"]) == [("optimizer.lr", 0.02, 0.001)]


def test_a_change_that_is_allowed_but_not_there_is_an_error_with_the_nearest(began, tiny):
    with pytest.raises(RunFolderError, match=r"--allow-change optimizer\.lt: nothing .*; did you mean optimizer\.lr\?"):
        check_unchanged(began, tiny("optimizer.lr=1e-3"), ["optimizer.lr", "optimizer.lt"])


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"a: [\n", b"\xff\xfe\x00", b"x\n"])
def test_a_damaged_recipe_in_the_folder_is_told(content, began, tiny):
    began.recipe.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"recipe\.yaml cannot be read \(.*nobody knows what this run is"):
        check_unchanged(began, tiny(), [])


def test_a_changed_recipe_is_refused_before_anything_is_written(stopped, train):
    def content():
        return {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file() and not p.name.startswith(".lock")}

    before = content()
    with pytest.raises(RunFolderError, match=r"optimizer\.weight_decay: 0\.05 before, 0\.1 now"):
        train("optimizer.weight_decay=0.1")
    with pytest.raises(RunFolderError, match=r"model\.dims: .* before"):
        train("model.dims=[8, 8, 8, 8]")
    with pytest.raises(RunFolderError, match=r"5 steps long now, but in .* it is 6 steps far"):
        train("training.epochs=null", "training.steps=5", allow_changes=["training"])
    with pytest.raises(RunFolderError, match=r"training\.batch_size"):
        train("training.batch_size=4", allow_changes=["training"])
    assert content() == before


@pytest.mark.parametrize("allowed", [[], ["training.batch_size"], ["training"]])
def test_another_batch_is_refused_even_where_it_is_allowed_with_the_way_that_works(allowed, began, tiny):
    with pytest.raises(
        RunFolderError,
        match=r"training\.batch_size: 8 before, 16 now; it cannot change in the midst of a run, .* in steps of 8 "
        r"images\. Keep it, or .*: convrun run \S*/recipe\.yaml training\.batch_size=16 "
        r"init\.from=\S*/checkpoints/latest --output ANOTHER_FOLDER$",
    ):
        check_unchanged(began, tiny("training.batch_size=16"), allowed)


def test_an_allowed_change_of_the_model_is_told_by_its_tensor(stopped, train):
    with pytest.raises(CheckpointError, match=r"holds the weights of another model: stem\.0\.weight"):
        train("model.dims=[8, 8, 8, 8]", allow_changes=["model.dims"])


def test_an_allowed_change_has_its_effect_and_is_on_record(stopped, train, saved):
    train("optimizer.weight_decay=0.25", "optimizer.betas=[0.8, 0.9]", allow_changes=["optimizer"])
    groups = {key: value for key, value in saved(stopped).items() if key.startswith("/optimizer/param_groups/")}
    assert {value for key, value in groups.items() if key.endswith("/weight_decay")} == {0.25, 0.0}
    assert {value for key, value in groups.items() if key.endswith("/betas")} == {(0.8, 0.9)}
    starts = json.loads((stopped / "environment.json").read_text())["starts"]
    assert [change["key"] for change in starts[1]["allowed_changes"]] == ["optimizer.weight_decay", "optimizer.betas"]
    # From now on it is the run's recipe.
    assert train("optimizer.weight_decay=0.25", "optimizer.betas=[0.8, 0.9]").was_finished


@pytest.mark.parametrize("allowed", [["optimizer.lr"], ["optimizer"], ["optimizer", "optimizer.lr"]])
def test_a_command_that_allows_a_change_may_be_given_again(allowed, began, tiny):
    """By a scheduler, say: the run has taken the change over by then."""
    changed = tiny("optimizer.lr=1e-3")
    add_start(began, "CPU", check_unchanged(began, changed, allowed), 6)
    began.recipe.write_text(yaml.safe_dump(changed.resolved()))
    assert check_unchanged(began, changed, allowed) == []
    with pytest.raises(RunFolderError, match=r"--allow-change optimizer\.lt: nothing .*; did you mean optimizer\.lr\?"):
        check_unchanged(began, changed, ["optimizer.lt"])
    with pytest.raises(RunFolderError, match=r"--allow-change optimizer\.weight_decay: nothing of that name"):
        check_unchanged(began, changed, [*allowed, "optimizer.weight_decay"])


def test_a_finished_run_can_be_made_longer(train, rows, tmp_path):
    train("scheduler=constant")
    outcome = train("scheduler=constant", "training.epochs=3", allow_changes=["training.epochs"])
    assert (outcome.step, outcome.was_finished) == (24, False)
    assert [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "train"] == [
        3,
        6,
        9,
        12,
        15,
        16,
        18,
        21,
        24,
    ]


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_a_change_that_a_finished_run_has_no_steps_left_for_is_refused_and_changes_nothing(state, train, tmp_path):
    run = tmp_path / "run"
    train()
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": state}))  # failed: as if in the weights' export
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and not p.name.startswith(".lock")}
    with pytest.raises(
        RunFolderError,
        match=r"has done its 16 steps: nothing is left to train with another optimizer\.weight_decay, and nothing was "
        r"changed\. Make it longer .*training\.epochs=\.\.\. --allow-change training\.epochs.*: convrun run "
        r"\S*/recipe\.yaml optimizer\.weight_decay=\.\.\. init\.from=\S*/checkpoints/latest --output ANOTHER_FOLDER$",
    ):
        train("optimizer.weight_decay=0.1", allow_changes=["optimizer.weight_decay"])
    assert {p: p.read_bytes() for p in before} == before
    keys = ("optimizer.weight_decay=0.1", "training.epochs=3", "scheduler=constant")
    assert train(*keys, allow_changes=["optimizer", "training", "scheduler"]).step == 24


def test_an_evaluation_that_a_finished_run_did_not_have_is_made(train, tmp_path, rows):
    train("callbacks=[]", "evaluation=null")
    assert train("callbacks=[]", allow_changes=["evaluation"]).top1 is not None
    assert [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "eval"] == [16, 16]


def test_the_best_result_of_an_earlier_start_stays_in_sight(stopped, train):
    train("logging.to=[console, jsonl]")
    line = next(line for line in (stopped / "train.log").read_text().splitlines() if "  step 9/16  loss" in line)
    assert re.search(r"  best \d+\.\d\d % \(EMA\)$", line)  # of step 5; the next evaluation is that after step 10


def test_a_run_can_be_ended_where_it_stands(stopped, train):
    keys = ("training.epochs=null", "training.steps=6")
    assert train(*keys, allow_changes=["training"]).step == 6
    assert (stopped / "weights/last.safetensors").is_file()


def test_a_run_that_early_stopping_ended_goes_on_when_that_is_changed(train):
    impatient = "callbacks=[{name: early_stopping, metric: top1, min_delta: 100, patience: 1}]"
    assert train(impatient).step == 10
    outcome = train("callbacks=[]", allow_changes=["callbacks"])
    assert (outcome.step, outcome.stopped_because) == (16, "")


def test_an_ema_that_begins_later_begins_with_the_weights_of_then(train, tmp_path, saved):
    keys = ("evaluation.report=model", "scheduler=constant")
    train(*keys, "ema=null")
    train(*keys, "ema.decay=0.5", "training.epochs=3", allow_changes=["ema", "training.epochs"])
    content = saved(tmp_path / "run")
    # 8 steps at 0.5 leave 0.4 % of the start: an EMA from the first weights of all would be elsewhere.
    weight, average = content["/model/head.fc.weight"], content["/ema/head.fc.weight"]
    assert 0 < (weight - average).norm() < 0.2 * weight.norm()


def test_fp16_can_begin_later(stopped, train):
    assert train("training.precision=fp16", allow_changes=["training.precision"]).step == 16


def test_another_optimizer_is_refused_though_allowed(stopped, train):
    with pytest.raises(CheckpointError, match=r"cannot go on with another optimizer: .* moments of its own"):
        train("optimizer={name: sgd, lr: 0.1}", allow_changes=["optimizer"])


def test_another_layer_decay_that_regroups_the_weights_is_told(stopped, train):
    with pytest.raises(CheckpointError, match=r"step-6\.pt does not fit the recipe: .*parameter groups"):
        train("optimizer.layer_decay=1.0", allow_changes=["optimizer.layer_decay"])


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"train_images": 66}, "train_images was 67, now it is 66"),
        ({"val_images": 1200}, "val_images was 10, now it is 1,200"),
        ({"class_names": ["a", "b", "d"]}, "3 classes before, 3 now; removed: 'c'; added: 'd'"),
        ({"class_names": ["a", "c"]}, "3 classes before, 2 now; removed: 'b'"),
        ({"class_names": ["a", "b", "c", "d"]}, "3 classes before, 4 now; added: 'd'"),
        ({"class_names": ["a", "c", "b"]}, "class 1 was 'b', now it is 'c'"),
    ],
)
def test_data_that_changed_behind_the_recipes_back_are_told(now, message, tmp_path):
    before = {"class_names": ["a", "b", "c"], "train_images": 67, "val_images": 10}
    check_same_data(tmp_path, before, dict(before))
    with pytest.raises(CheckpointError, match=f"the data have changed since .*: {message}; restore them, or train in"):
        check_same_data(tmp_path, before, before | now)


def test_data_that_were_allowed_to_change_are_not_compared(stopped, train):
    change = ["data.val_images=12"]
    with pytest.raises(RunFolderError, match=r"data\.val_images"):
        train(*change)
    assert train(*change, allow_changes=["data.val_images"]).step == 16


def test_a_class_that_is_ignored_since_is_told_with_the_reason(tmp_path):
    before, now = {"class_names": [".ipynb_checkpoints", "a"]}, {"class_names": ["a"]}
    with pytest.raises(CheckpointError, match=r"removed: '\.ipynb_checkpoints' \(.* leave behind, so it is no class"):
        check_same_data(tmp_path, before, now)


def test_other_classes_are_told_by_name_and_not_as_another_model_with_a_cure_that_works(stopped, train, tmp_path):
    with pytest.raises(CheckpointError, match=r"have changed .* 3 classes before, 4 now; added: 'class 3'") as caught:
        train("data.num_classes=4", allow_changes=["data.num_classes"])
    words = shlex.split(str(caught.value).partition("from its weights: ")[2])
    assert words[:2] == ["convrun", "run"]
    assert run(load_recipe(Path(words[2]), words[3:-2]), tmp_path / "other", device="cpu").step == 16


def test_only_what_changed_is_dropped():
    saved = {"state": {"stopped_because": "patience", "callbacks": [{"waited": 2}]}}
    drop_what_changed(saved, ["optimizer.lr"])
    assert saved["state"] == {"stopped_because": "", "callbacks": [{"waited": 2}]}
    drop_what_changed(saved, ["callbacks"])
    assert saved["state"]["callbacks"] is None


def test_from_before_a_damaged_newest_checkpoint_the_run_goes_on_as_it_was(train, reference, rows, tmp_path):
    train()
    newest = max(checkpoints.steps_in(tmp_path / "run" / "checkpoints"))
    path = tmp_path / "run" / "checkpoints" / f"step-{newest}.pt"
    path.write_bytes(path.read_bytes()[:1000])
    assert train().step == 16
    assert f"step-{newest}.pt" in (tmp_path / "run" / "train.log").read_text()
    assert rows(tmp_path / "run") == rows(reference)
