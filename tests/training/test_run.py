"""What a run leaves in its folder, and what status.json says at every way out."""

import io
import json
import os
import re
import signal
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from convrun import checkpoints
from convrun.errors import CheckpointError, DataError, Interrupted, ModelError, Preempted, RunFolderError
from convrun.recipe import load_recipe
from convrun.recipe.consistency import differences
from convrun.run_folder import RunFolder
from convrun.run_folder.claim import is_lock_file
from convrun.training.loop import Loop
from convrun.training.run import check_counts
from tests.sealing import save_sealed

TENSORBOARD = "logging.to=[console, jsonl, tensorboard, csv]"


def status(folder):
    return json.loads((folder / "status.json").read_text())


def fail(error):
    def raise_it(*_, **__):
        raise error

    return raise_it


@pytest.fixture(scope="module")
def folder(train_in, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train_in(folder, TENSORBOARD)
    return folder


def test_holds_the_files_of_the_design_and_no_others(folder):
    found = {path.name for path in folder.iterdir()}
    designed = {"recipe.yaml", "plan.json", "environment.json", "status.json", "metrics.jsonl", "train.log"}
    assert found == designed | {"tensorboard", "checkpoints", "weights", "train.csv", "eval.csv", ".lock", ".lock.1"}
    assert len(list((folder / "tensorboard").iterdir())) == 1


def test_the_last_two_checkpoints_and_the_best_stay(folder):
    written, top1 = {4, 8, 12, 16}, -1.0
    for row in map(json.loads, (folder / "metrics.jsonl").open()):
        if row.get("weights") == "ema" and row["top1"] > top1:
            best, top1 = row["step"], row["top1"]
            written.add(best)
    kept = {f"step-{step}.pt" for step in {best, *sorted(written)[-2:]}}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == kept | {"latest", "best"}
    assert (folder / "checkpoints" / "best").resolve().name == f"step-{best}.pt"
    assert (folder / "checkpoints" / "latest").resolve().name == "step-16.pt"


def test_the_recipe_in_the_folder_is_the_same_recipe(folder, tiny):
    again = load_recipe(folder / "recipe.yaml", plugins=False)
    assert again.hash == tiny(TENSORBOARD).hash
    assert differences(tiny(TENSORBOARD).resolved(), again.resolved()) == []


def test_the_recipe_in_the_folder_reruns_alone(folder, train_in, rows, saved, tmp_path, monkeypatch):
    from convrun.display.screen import Screen
    from convrun.training.run import run

    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(folder / "recipe.yaml", plugins=False)
    outcome = run(recipe, device="cpu", screen=Screen(io.StringIO()))
    assert re.fullmatch(r"runs/tiny/\d{8}-\d{6}-[0-9a-f]{6}", str(outcome.folder))
    assert rows(outcome.folder) == rows(folder)
    ours, theirs = saved(outcome.folder), saved(folder)
    assert all(torch.equal(ours[key], value) for key, value in theirs.items() if isinstance(value, torch.Tensor))


def test_the_plan_is_json_with_the_numbers_of_the_run(folder):
    plan = json.loads((folder / "plan.json").read_text())
    expected = {"total_steps": 16, "steps_per_epoch": 8, "accumulation": 2, "images_left_out": 3, "processes": 1}
    expected |= {"precision": "float32", "device": "cpu", "first_lr": 0.0, "train_images": 67, "val_images": 10}
    assert {key: plan[key] for key in expected} == expected


def test_the_environment_says_where_and_with_what(folder):
    (start,) = json.loads((folder / "environment.json").read_text())["starts"]
    assert start["versions"]["torch"] == torch.__version__
    assert None not in start["versions"].values()
    assert set(start["versions"]) == {"convrun", "torch", "torchvision", "timm", "numpy", "pillow"}
    assert start["device"].startswith("CPU")
    assert start["python"].count(".") == 2
    assert (start["from_step"], start["folder"], start["allowed_changes"]) == (0, os.getcwd(), [])
    assert start["command"]


def test_the_rows_have_their_keys(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train_keys = {
        "kind",
        "step",
        "epoch",
        "loss",
        "lr",
        "grad_norm",
        "images_per_second",
        "data_wait",
        "checkpoint_wait",
    }
    eval_keys = {"kind", "step", "epoch", "weights", "top1", "top5", "loss", "images"}
    assert {frozenset(row) for row in rows if row["kind"] == "train"} == {frozenset(train_keys)}
    assert {frozenset(row) for row in rows if row["kind"] == "eval"} == {frozenset(eval_keys)}
    assert [row["epoch"] for row in rows if row["kind"] == "train"] == [0.375, 0.75, 1.125, 1.5, 1.875, 2.0]
    assert all(0 <= row["data_wait"] <= 1 and row["images_per_second"] > 0 for row in rows if row["kind"] == "train")


def test_checkpoints_hold_what_the_design_lists(folder):
    saved = checkpoints.load((folder / "checkpoints" / "latest").resolve())
    assert saved["data"] == {"class_names": ["class 0", "class 1", "class 2"], "train_images": 67, "val_images": 10}
    assert saved["samples_seen"] == 16 * 8
    assert saved["recipe_hash"] == json.loads((folder / "plan.json").read_text())["recipe_hash"]
    assert saved["recipe"]["name"] == "tiny"
    evaluated = [r for r in map(json.loads, (folder / "metrics.jsonl").open()) if r.get("weights") == "ema"]
    best = max(evaluated, key=lambda row: (row["top1"], -row["step"]))
    assert saved["state"]["best"] == [(best["top1"], best["step"])]
    assert (folder / "checkpoints" / "best").resolve().name == f"step-{best['step']}.pt"


def test_status_is_finished_at_the_end(folder):
    told = status(folder)
    assert (told["state"], told["step"], told["total_steps"], told["pid"]) == ("finished", 16, 16, os.getpid())
    assert "error" not in told


def test_the_log_has_what_the_screen_showed_and_the_result(folder):
    log = (folder / "train.log").read_text()
    assert re.search(r"^tiny starts in .* on CPU", log)
    assert "epoch 2/2  step 16/16  evaluated ema: top-1 " in log
    assert "finished after step 16\nbest top-1  " in log
    assert "\x1b" not in log


def test_status_is_running_meanwhile_and_tells_the_saved_step(train, tmp_path, wait_until):
    def look():
        wait_until(lambda: status(tmp_path / "run")["step"] == 8)  # written in the background
        assert status(tmp_path / "run")["state"] == "running"

    train(at={9: look})


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DataError("an image is broken"), "failed"),
        (RuntimeError("a bug"), "failed"),
        (MemoryError(), "failed"),
    ],
)
def test_status_tells_how_a_run_failed(error, state, train, tmp_path):
    with pytest.raises(type(error)):
        train(at={6: fail(error)})
    told = status(tmp_path / "run")
    assert (told["state"], told["step"]) == (state, 6)
    assert told["error"] == (str(error) or type(error).__name__)


def test_stopped_at_once_it_says_where_it_goes_on(train, tmp_path):
    with pytest.raises(Interrupted, match=r"stopped at once, in the midst of step 7; .*checkpoint with: convrun run /"):
        train(at={6: fail(KeyboardInterrupt())})
    assert (status(tmp_path / "run")["state"], status(tmp_path / "run")["step"]) == ("interrupted", 6)
    assert checkpoints.steps_in(tmp_path / "run" / "checkpoints")[-1] < 6


def test_status_is_failed_when_the_loop_cannot_be_built(train, tmp_path, monkeypatch):
    monkeypatch.setattr(Loop, "__init__", fail(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        train()
    assert status(tmp_path / "run")["state"] == "failed"


def test_a_folder_in_use_is_refused_before_the_model_takes_memory_of_the_device(train, tmp_path, monkeypatch):
    """The device may be full of the run that holds the folder, which must not be disturbed."""
    monkeypatch.setattr("convrun.training.run.placed", fail(AssertionError("the model is placed")))
    with RunFolder(tmp_path / "run").opened(), pytest.raises(RunFolderError, match="is in use by process"):
        train()


def test_a_model_that_cannot_be_placed_leaves_no_folder(train, tmp_path, monkeypatch):
    monkeypatch.setattr("convrun.training.run.placed", fail(ModelError("it has no blocks")))
    with pytest.raises(ModelError, match="no blocks"):
        train()
    assert not (tmp_path / "run").exists()


def test_status_is_failed_when_the_log_cannot_be_opened(train, tmp_path):
    (tmp_path / "run" / "train.log").mkdir(parents=True)
    (tmp_path / "run" / "recipe.yaml").write_text("name: tiny")
    (tmp_path / "run" / ".lock").write_text("")
    with pytest.raises(RunFolderError, match=r"train\.log cannot be written: Is a directory"):
        train()
    assert status(tmp_path / "run")["state"] == "failed"


def test_weights_that_could_not_be_written_are_made_up_for(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("convrun.training.recording.recorder.export_weights", fail(RunFolderError("no space left")))
        with pytest.raises(RunFolderError, match="no space left"):
            train()
    assert status(tmp_path / "run")["state"] == "failed"
    outcome = train()
    assert (outcome.step, outcome.was_finished) == (16, False)
    assert (tmp_path / "run" / "weights" / "best_ema.safetensors").is_file()
    assert status(tmp_path / "run")["state"] == "finished"


def test_a_finished_run_started_again_says_so_and_changes_nothing(train, tmp_path, monkeypatch):
    def times():
        files = (path for path in (tmp_path / "run").rglob("*") if not is_lock_file(path.name))
        return {path: path.stat().st_mtime_ns for path in files}

    first, before = train(), times()
    monkeypatch.setattr("convrun.training.run.placed", fail(AssertionError("it needs no device")))
    again = train()
    assert again.was_finished
    assert (again.top1, again.step) == (first.top1, 16)
    assert times() == before


def test_an_error_of_a_logger_does_not_hide_the_first_one(train, monkeypatch):
    monkeypatch.setattr("convrun.components.loggers.JsonLines.close", fail(OSError("cannot flush")))
    with pytest.raises(DataError, match="an image is broken"):
        train(at={6: fail(DataError("an image is broken"))})


def test_loggers_are_closed_though_one_of_them_fails(train, monkeypatch):
    closed = []
    monkeypatch.setattr("convrun.components.loggers.JsonLines.close", fail(RunFolderError("cannot flush")))
    monkeypatch.setattr("convrun.components.loggers.Console.close", lambda self: closed.append("console"))
    monkeypatch.setattr("convrun.components.loggers.CsvTables.close", lambda self: closed.append("csv"))
    with pytest.raises(RunFolderError, match="cannot flush"):
        train("logging.to=[console, jsonl, csv]")
    assert closed == ["console", "csv"]


def test_resume_never_and_must(train, tmp_path):
    with pytest.raises(RunFolderError, match=r"--resume must: .*run holds no checkpoint to go on from"):
        train(resume="must")
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError):
        train(at={6: fail(DataError("an image is broken"))})
    with pytest.raises(RunFolderError, match=r"--resume never: .*run holds a run already; .*--output"):
        train(resume="never")
    assert train(resume="must").step == 16


def test_a_checkpoint_of_another_model_is_refused_by_its_first_tensor(train, train_in, tmp_path):
    train("training.steps=2", "training.epochs=null", "scheduler.warmup_steps=0")
    train_in(tmp_path / "wide", "model.dims=[8, 8, 8, 8]", "training.steps=1", "training.epochs=null",
             "scheduler.warmup_steps=0")  # fmt: skip
    target = tmp_path / "run" / "checkpoints" / "step-2.pt"
    target.write_bytes((tmp_path / "wide" / "checkpoints" / "step-1.pt").read_bytes())
    with pytest.raises(
        CheckpointError, match=r"step-2\.pt holds the weights of another model: stem\.0\.weight is \(8,"
    ):
        train("training.steps=2", "training.epochs=null", "scheduler.warmup_steps=0")


def test_a_checkpoint_without_all_its_state_is_refused(train, tmp_path):
    with pytest.raises(Interrupted):
        train(at={6: lambda: os.kill(os.getpid(), 2)})
    path = tmp_path / "run" / "checkpoints" / "step-6.pt"
    saved = checkpoints.load(path)
    for damage in ({"optimizer": {"state": {}, "param_groups": []}}, {"ema": {}}, {"state": {"step": 6}}):
        save_sealed(saved | damage, path)
        with pytest.raises(CheckpointError, match=r"step-6\.pt(: the saved EMA)? does not fit the (recipe|model)"):
            train()
        assert status(tmp_path / "run")["state"] in ("failed", "interrupted")


def test_stopping_before_the_first_step_is_no_loss(train, saved, tmp_path, monkeypatch):
    import signal

    from convrun.training import run as module

    make = module.build_loop
    monkeypatch.setattr(module, "build_loop", lambda *a: (signal.raise_signal(signal.SIGTERM), make(*a))[1])
    with pytest.raises(Preempted, match="stopped after step 0 of 16"):
        train()
    monkeypatch.undo()
    assert saved(tmp_path / "run")["/state/step"] == 0
    assert train().step == 16


def test_while_a_run_trains_nothing_holds_the_checkpoint_that_it_goes_on_from(train, tmp_path, monkeypatch):
    """On every rank its weights and their EMA; the moments are the optimizer's then."""
    with pytest.raises(Preempted):
        train(at={6: lambda: signal.raise_signal(signal.SIGTERM)})
    load, loaded, alive = checkpoints.load, [], []

    def remember(path):
        content = load(path)
        loaded.extend(weakref.ref(tensor) for part in ("model", "ema") for tensor in content[part].values())
        return content

    monkeypatch.setattr(checkpoints, "load", remember)
    train(at={7: lambda: alive.extend(tensor() for tensor in loaded)})
    assert len(alive) > 50
    assert all(tensor is None for tensor in alive)


def test_paths_with_spaces_can_be_pasted(train_in, tmp_path):
    with pytest.raises(Interrupted, match=re.escape(f"go on with: convrun run '{tmp_path}/a run'")):
        train_in(Path(tmp_path / "a run"), at={2: lambda: os.kill(os.getpid(), 2)})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ("model={name: timm/convnext_atto, options: {in_chans: 1}}", "optimizer.layer_decay=1"),
            "images have 3 channels",
        ),
        (("model={name: timm/vit_tiny_patch16_224}", "optimizer.layer_decay=1"), "set input_size=224"),
    ],
)
def test_a_model_that_cannot_take_the_images_is_told_before_there_is_a_folder(
    keys, message, convrun, tiny_file, tmp_path
):
    arguments = ["run", tiny_file, "--output", tmp_path / "run", "--no-plugins", "--device", "cpu"]
    code, _, errors = convrun(*arguments, "input_size=32", "data.image_size=32", *keys)
    assert code == 2
    assert errors.count("error: the model timm/") == 1
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_both_splits_name_the_same_classes():
    class Split(list):
        class_names = ("a", "b", "c")

    class Other(Split):
        class_names = ("a", "c", "b")

    plan = SimpleNamespace(data=SimpleNamespace(name="mine"), train_images=2, val_images=1, data_classes=3)
    check_counts(plan, Split([0, 1]), Split([0]))
    with pytest.raises(DataError, match="data/mine: label 1 is 'b' in train, but 'c' in val; both splits must have"):
        check_counts(plan, Split([0, 1]), Other([0]))
