"""Which state a run goes on from, when checkpoints are damaged, gone, foreign, or cannot be read."""

import errno
import json
import os
import shlex
import shutil
import zlib

import pytest
import torch

from convrun import checkpoints
from convrun.errors import CheckpointError, Preempted, RunFolderError
from tests.sealing import save_sealed

KEEP_ALL = "checkpoints={every_steps: 4, keep: {last: 9}}"


@pytest.fixture(scope="module")
def made(train_in, tmp_path_factory):
    """A run with the checkpoints 4, 5, 8, 10, 12, 15 or so, that was stopped after step 13; only to be copied."""
    import signal

    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Preempted):
        train_in(folder, KEEP_ALL, at={13: lambda: signal.raise_signal(signal.SIGTERM)})
    return folder


@pytest.fixture
def stopped(made, tmp_path):
    shutil.copytree(made, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def files(run):
    return [checkpoints.path_of(run / "checkpoints", step) for step in checkpoints.steps_in(run / "checkpoints")]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def assert_as_never_stopped(run, reference, rows):
    assert rows(run) == rows(reference)
    for path in (reference / "weights").glob("*.safetensors"):
        assert (run / "weights" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("number", [1, 2])
def test_the_newest_good_one_is_used_and_the_run_ends_as_if_nothing_had_been(
    number, damage, stopped, train, reference, rows
):
    damaged = files(stopped)[-number:]
    good = files(stopped)[-number - 1]
    for path in damaged:
        damage(path)
    train(KEEP_ALL)
    log = (stopped / "train.log").read_text()
    for path in damaged:
        assert f"the checkpoint {path} is damaged (" in log
        assert f"it is now called {path.name}.damaged, and the one before it is tried" in log
        assert path.with_name(path.name + ".damaged").is_file()
    assert f"goes on after step {good.stem.removeprefix('step-')} of 16" in log
    assert_as_never_stopped(stopped, reference, rows)


@pytest.mark.parametrize("how", ["damaged", "deleted", "folder deleted"])
def test_when_none_is_left_the_run_stops_again_and_again(how, stopped, train):
    last = files(stopped)[-1].stem.removeprefix("step-")
    for path in files(stopped):
        cut(path) if how == "damaged" else path.unlink()
    if how == "folder deleted":
        shutil.rmtree(stopped / "checkpoints")
    before = (stopped / "metrics.jsonl").read_bytes()
    for _ in range(2):
        with pytest.raises(
            CheckpointError, match=rf"no checkpoint is left .* had saved step {last}: .*put one back"
        ) as e:
            train(KEEP_ALL)
        assert e.value.exit_code == 1
        assert ("all are damaged" in str(e.value)) == (how == "damaged")
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_one_that_is_put_back_is_gone_on_with(stopped, train, reference, rows, tmp_path):
    shutil.copytree(stopped / "checkpoints", tmp_path / "copy", symlinks=True)
    for path in files(stopped):
        cut(path)
    with pytest.raises(CheckpointError, match="no checkpoint is left"):
        train(KEEP_ALL)
    for step in (5, 8):  # the best, and one to go on from
        shutil.copy(tmp_path / "copy" / f"step-{step}.pt", stopped / "checkpoints")
    train(KEEP_ALL)
    assert_as_never_stopped(stopped, reference, rows)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_one_that_cannot_be_read_is_left_where_it_is(number, stopped, train, monkeypatch):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    before = sorted(os.listdir(stopped / "checkpoints"))
    monkeypatch.setattr(zlib, "crc32", fail)
    with pytest.raises(CheckpointError, match=rf"cannot be read: {os.strerror(number)}; it may be intact"):
        train(KEEP_ALL)
    assert sorted(os.listdir(stopped / "checkpoints")) == before


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (lambda path: path.mkdir(), "is a folder, not a checkpoint"),
        (os.mkfifo, "is a named pipe, not a checkpoint"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read: No such file or directory"),
        (lambda path: save_sealed({"format": 1}, path), "has format 1, and this convrun goes on from format 2"),
        (lambda path: save_sealed({"state_dict": {}}, path), "is not a checkpoint of a convrun run"),
    ],
)
def test_what_is_no_checkpoint_is_answered_with_a_message(put, message, stopped, train):
    path = stopped / "checkpoints" / "step-14.pt"
    put(path)
    with pytest.raises(CheckpointError, match=rf"step-14\.pt {message}"):
        train(KEEP_ALL)
    path.rmdir() if path.is_dir() else path.unlink()
    assert train(KEEP_ALL).step == 16


def test_the_command_that_begins_another_run_from_a_checkpoint_of_another_format_works(stopped, convrun, tmp_path):
    path = stopped / "checkpoints" / "latest"
    (stopped / "checkpoints" / "latest").resolve().rename(path.parent / "step-14.pt")
    save_sealed(torch.load(path.parent / "step-14.pt", weights_only=True) | {"format": 1}, path.parent / "step-14.pt")
    rest = ("--no-plugins", "--device", "cpu")
    code, _, errors = convrun("run", stopped, *rest)
    assert code == 1
    assert errors.count("error: ") == 1
    command = shlex.split(errors[errors.index("convrun run ") :])
    assert command[-2:] == ["--output", "ANOTHER_FOLDER"]
    code, _, errors = convrun(*command[1:-1], tmp_path / "another", *rest)
    assert code == 0, errors
    assert "tensors loaded from step-14.pt" in (tmp_path / "another" / "train.log").read_text()


@pytest.mark.parametrize("name", ["latest", "best"])
@pytest.mark.parametrize("target", ["step-999.pt", "latest", "/dev/full"])
def test_links_that_lead_nowhere_do_not_matter_and_are_mended(name, target, stopped, train, reference, rows):
    (stopped / "checkpoints" / name).unlink()
    (stopped / "checkpoints" / name).symlink_to(target)
    train(KEEP_ALL)
    assert (stopped / "checkpoints" / name).resolve().name in {path.name for path in files(stopped)}
    assert_as_never_stopped(stopped, reference, rows)


def test_a_checkpoint_of_another_recipe_is_refused(stopped, train, train_in, tmp_path):
    train_in(tmp_path / "other", "seed=4")
    shutil.copy(tmp_path / "other/checkpoints/step-16.pt", stopped / "checkpoints")
    with pytest.raises(
        CheckpointError, match=r"step-16\.pt was saved by another run: its seed is 4, here it is 3; remove"
    ):
        train(KEEP_ALL)


def test_a_checkpoint_under_another_name_is_refused(stopped, train):
    shutil.copy(files(stopped)[-1], stopped / "checkpoints" / "step-16.pt")
    with pytest.raises(CheckpointError, match=r"step-16\.pt holds the state after step 13; give it its name back"):
        train(KEEP_ALL)


def test_a_change_that_was_allowed_is_no_other_run(stopped, train):
    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    with pytest.raises(Killed):  # before the next checkpoint: the newest is one of the recipe before
        train(KEEP_ALL, "optimizer.lr=1e-2", allow_changes=["optimizer.lr"], at={14: kill})
    assert train(KEEP_ALL, "optimizer.lr=1e-2").step == 16


@pytest.mark.parametrize("starts", ["[null]", '[{"allowed_changes": [3]}]'])
def test_an_environment_that_somebody_damaged_or_edited_forbids_no_run(starts, stopped, train):
    (stopped / "environment.json").write_text(f'{{"starts": {starts}}}')
    assert train(KEEP_ALL).step == 16


def test_status_says_which_checkpoint_is_saved(stopped):
    assert json.loads((stopped / "status.json").read_text())["saved_step"] == 13


def best_step(run):
    saved = checkpoints.load((run / "checkpoints" / "latest").resolve())
    return saved["state"]["best"][0][1]


@pytest.mark.parametrize("harm", [cut, os.unlink])
def test_a_best_checkpoint_that_is_lost_is_told_and_no_other_is_passed_off_as_it(harm, train, tmp_path):
    run = tmp_path / "run"
    train(KEEP_ALL)
    step = best_step(run)
    assert step < 16, "else the newest is the best"
    harm(run / "checkpoints" / f"step-{step}.pt")
    assert {path.name for path in (run / "weights").iterdir()} > {"best.safetensors", "best_ema.safetensors"}
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "failed"}))  # as if its export had failed
    train(KEEP_ALL)
    assert {path.stem for path in (run / "weights").glob("*.safetensors")} == {"last", "last_ema"}
    assert (
        f"weights/best.safetensors is not written: the checkpoint {run}/checkpoints/step-{step}.pt"
        in (run / "train.log").read_text()
    )


def test_resume_never_refuses_a_run_whose_checkpoints_are_gone(stopped, train):
    for path in files(stopped):
        path.unlink()
    with pytest.raises(RunFolderError, match=r"--resume never: .* holds a run already"):
        train(KEEP_ALL, resume="never")


def test_checkpoints_that_end_every_nth_epoch_stay_for_good(train, tmp_path):
    train("checkpoints={every_epochs: 1, keep: {last: 1, best: 0, every_epochs: 2}}", "training.epochs=5",
          "evaluation=null", "callbacks=[]", "ema=null")  # fmt: skip
    assert checkpoints.steps_in(tmp_path / "run" / "checkpoints") == [16, 32, 40]
