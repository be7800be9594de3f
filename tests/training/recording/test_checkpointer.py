"""Saving in the background: what training waits for, what a full disk costs, what a fork meanwhile may meet."""

import errno
import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest
import torch

from convrun import checkpoints
from convrun.errors import Preempted, RunFolderError
from convrun.run_folder import folder as folder_module

ALL_LOGGERS = "logging.to=[console, jsonl, csv, tensorboard]"


def log_of(run):
    return (run / "train.log").read_text()


def steps(run):
    return checkpoints.steps_in(run / "checkpoints")


def is_at_rest(run, step):
    """Whether this step's checkpoint is saved and nothing is left to do for it: status.json comes last."""
    return json.loads((run / "status.json").read_text()).get("saved_step") == step


@pytest.fixture
def slow_disk(monkeypatch):
    """Checkpoints take as long as the test says; gives the events (begun, may end)."""
    begun, may_end, save = threading.Event(), threading.Event(), torch.save

    def slowly(content, file):
        if isinstance(content, dict) and "model" in content:
            begun.set()
            assert may_end.wait(60)
        save(content, file)

    monkeypatch.setattr(torch, "save", slowly)
    return begun, may_end


def test_training_goes_on_while_a_checkpoint_is_written(train, slow_disk, reference, rows, tmp_path):
    begun, may_end = slow_disk
    seen = []

    def look():  # step 5 is done while the checkpoint of step 4 is being written
        seen.append((begun.wait(60), steps(tmp_path / "run")))
        may_end.set()

    train(at={5: look})
    assert seen == [(True, [])]
    assert rows(tmp_path / "run") == rows(reference)
    for name in os.listdir(reference / "weights"):
        assert (tmp_path / "run/weights" / name).read_bytes() == (reference / "weights" / name).read_bytes()


def test_one_is_in_flight_at_most(train, monkeypatch):
    save, running, most = torch.save, [], []

    def counted(content, file):
        running.append(1)
        most.append(len(running))
        time.sleep(0.002)
        save(content, file)
        running.pop()

    monkeypatch.setattr(torch, "save", counted)
    train("checkpoints.every_steps=1")
    assert len(most) > 16
    assert max(most) == 1


@pytest.mark.parametrize("how", ["signal", "error"])
def test_every_way_out_waits_for_what_is_in_flight(how, train, slow_disk, tmp_path):
    begun, may_end = slow_disk

    def stop():
        assert begun.wait(60)
        threading.Timer(0.1, may_end.set).start()
        if how == "error":
            raise ZeroDivisionError
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Preempted if how == "signal" else ZeroDivisionError):
        train(at={5: stop})
    assert steps(tmp_path / "run") == ([4, 5] if how == "signal" else [4])
    assert not list((tmp_path / "run").rglob(".*.draft"))
    for thread in threading.enumerate():
        if thread.name == "checkpoint":  # it has told that it is done, and is about to vanish
            thread.join(5)
            assert not thread.is_alive()


def test_what_training_waited_for_checkpoints_is_on_record(train, tmp_path):
    train()
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    shares = [row["checkpoint_wait"] for row in rows if row["kind"] == "train"]
    assert all(0 <= share <= 1 for share in shares)
    assert any(share > 0 for share in shares)
    assert re.search(r"training waited \d+\.\d s for checkpoints, \d+\.\d% of its time", log_of(tmp_path / "run"))


def test_rows_are_on_the_disk_before_a_checkpoint_has_its_name(train, tmp_path, monkeypatch):
    run, synced, replace, fsync = tmp_path / "run", {}, type(tmp_path).replace, os.fsync

    def noted(descriptor):
        fsync(descriptor)
        synced[os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))] = os.fstat(descriptor).st_size

    def looked_at(self, target):
        if str(target).endswith(".pt"):
            for name in ("metrics.jsonl", "train.csv"):
                assert synced[name] >= len(before[name])  # a row may have come since
                assert (run / name).read_bytes().startswith(before[name])
            assert any(name.startswith("events.out.tfevents") for name in synced)
        return replace(self, target)

    before = {}
    from convrun.training.recording.checkpointer import Checkpointer

    copy = Checkpointer._copy

    def remember(self, state):
        before.update({name: (run / name).read_bytes() for name in ("metrics.jsonl", "train.csv")})
        return copy(self, state)

    monkeypatch.setattr(Checkpointer, "_copy", remember)
    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(type(tmp_path), "replace", looked_at)
    train(ALL_LOGGERS)
    assert before


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_that_are_forked_while_a_checkpoint_is_written_do_their_work(
    workers, train, reference, rows, tmp_path, monkeypatch
):
    """Every evaluation starts workers; here a save is in flight, amid torch's serialisation, at each of them."""
    save = torch.save

    class Slow:
        def __init__(self, file):
            self.file = file

        def write(self, content):
            if len(content) < 9:  # the signature of a record: a handful of times in a file
                time.sleep(0.0005)
            return self.file.write(content)

        def flush(self):
            pass

    monkeypatch.setattr(torch, "save", lambda content, file: save(content, Slow(file) if "model" in content else file))
    train(f"data.workers={workers}", "checkpoints.every_steps=1")
    assert rows(tmp_path / "run") == rows(reference)


PLAIN = ("evaluation=null", "callbacks=[]", "ema=null")


def test_a_full_disk_at_a_checkpoint_is_said_and_the_next_one_is_tried(train, tmp_path, no_room_for):
    run = tmp_path / "run"
    assert train(*PLAIN, "logging.to=[console, jsonl]", at={7: lambda: no_room_for(8)}).step == 16
    log = log_of(run)
    assert re.search(
        r"step-8\.pt cannot be written: No space left on device \(it needs .* KiB\); step-4\.pt stays, "
        r"training goes on, and the next is tried when it is due\n"
        r"(.*\n)*step-12\.pt is saved: checkpoints are written again",
        log,
    ), log
    assert steps(run) == [12, 16]
    assert json.loads((run / "status.json").read_text())["state"] == "finished"


def test_the_last_state_is_tried_once_more_at_the_end(train, tmp_path, no_room_for):
    run = tmp_path / "run"
    assert train(*PLAIN, at={15: lambda: no_room_for(16)}).step == 16
    assert steps(run) == [12, 16]


@pytest.mark.parametrize("how", ["end", "signal"])
def test_a_last_state_that_cannot_be_saved_is_an_error_that_says_what_is(how, train, tmp_path, monkeypatch, wait_until):
    run, save = tmp_path / "run", torch.save

    def fill():
        def full(content, file):
            raise OSError(errno.ENOSPC, "No space left on device")

        wait_until(lambda: is_at_rest(run, 8))  # it may be in flight still
        monkeypatch.setattr(torch, "save", full)
        if how == "signal":
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(RunFolderError) as caught:
        train(*PLAIN, at={9: fill})
    step = 16 if how == "end" else 9
    assert re.fullmatch(
        rf"the state after step {step} cannot be saved: the checkpoint .*: No space left on device "
        r"\(it needs .*\); step-8\.pt stays\. Free space on that disk, then go on from there with: convrun run .*run",
        str(caught.value),
    ), caught.value
    assert caught.value.exit_code == 1
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["saved_step"]) == ("failed", 8)
    monkeypatch.setattr(torch, "save", save)
    assert train(*PLAIN).step == 16


def test_a_folder_of_checkpoints_that_somebody_deletes_is_made_again(train, tmp_path, wait_until):
    run = tmp_path / "run"

    def delete():
        wait_until(lambda: is_at_rest(run, 4))  # it may be in flight still
        (run / "checkpoints").rename(tmp_path / "away")

    assert train(*PLAIN, "logging.to=[console, jsonl]", at={6: delete}).step == 16
    assert steps(run) == [12, 16]
    assert "cannot be" not in log_of(run)


def test_a_run_folder_that_somebody_moves_away_ends_the_run_and_is_not_made_again(train, tmp_path, reference, rows):
    run = tmp_path / "run"
    with pytest.raises(RunFolderError, match=r"/run is gone: .* moved away .*; put it back to go on from its last"):
        train(at={7: lambda: run.rename(tmp_path / "away")})
    assert not run.exists()
    (tmp_path / "away").rename(run)
    train()
    assert rows(run) == rows(reference)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_another_reason_than_a_full_disk_has_another_cure_and_what_is_left_is_told_truly(
    is_deleted, train, tmp_path, monkeypatch, wait_until
):
    run = tmp_path / "run"

    def failing(content, file):
        raise OSError(errno.EIO, "Input/output error")

    def fail():
        wait_until(lambda: is_at_rest(run, 8))  # it may be in flight still
        if is_deleted:
            (run / "checkpoints").rename(tmp_path / "away")
        monkeypatch.setattr(torch, "save", failing)

    with pytest.raises(RunFolderError) as caught:
        train(*PLAIN, at={9: fail})
    stays = r"of the checkpoints up to step-8\.pt none is there any more" if is_deleted else r"step-8\.pt stays"
    go_on = "start again" if is_deleted else "go on from there"
    assert re.fullmatch(
        rf"the state after step 16 cannot be saved: .*/step-16\.pt cannot be written: Input/output error; "
        rf"{stays}\. Look at that disk and folder, then {go_on} with: convrun run .*run",
        str(caught.value),
    ), caught.value


def test_a_status_that_cannot_be_written_ends_no_run(train, tmp_path, monkeypatch):
    run, write = tmp_path / "run", folder_module.write_whole

    def failing(path, content):
        if path.name == "status.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    def fill():
        monkeypatch.setattr(folder_module, "write_whole", failing)

    def free():
        monkeypatch.setattr(folder_module, "write_whole", write)

    train(*PLAIN, "logging.to=[console, jsonl]", at={3: fill, 15: free})
    assert log_of(run).count("status.json cannot be written: No space left on device") == 1
    assert json.loads((run / "status.json").read_text())["state"] == "finished"


def fill(state, monkeypatch, name):
    write = os.write
    state["full"] = True

    def failing(descriptor, content):
        if state["full"] and name in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", failing)


@pytest.mark.parametrize("name", ["metrics.jsonl", "train.csv", "tfevents"])
def test_rows_that_find_no_room_hold_back_the_checkpoint_and_are_written_later(
    name, train, train_in, rows, tmp_path, monkeypatch
):
    train_in(tmp_path / "whole", ALL_LOGGERS)
    run, state = tmp_path / "run", {}
    seen = []
    train(
        ALL_LOGGERS,
        at={
            2: lambda: fill(state, monkeypatch, name),
            7: lambda: (seen.append(steps(run)), state.update(full=False)),
        },
    )
    assert seen == [[]]  # neither after step 4 nor with the evaluation after step 5
    assert rows(run) == rows(tmp_path / "whole")
    log = log_of(run)
    assert (
        len(re.findall(rf"{name}.* cannot be written: No space left on device; training goes on, and its lines", log))
        == 1
    )
    assert "no checkpoint is saved yet, training goes on" in log
    assert len(re.findall(rf"{name}.* is written again, nothing is missing", log)) == 1


def test_rows_that_never_find_room_end_the_run_with_all_else_saved(train, reference, rows, tmp_path, monkeypatch):
    state = {}
    with pytest.raises(
        RunFolderError, match=r"state after step 16 cannot be saved: .*metrics\.jsonl cannot be written: No"
    ):
        train(at={6: lambda: fill(state, monkeypatch, "metrics.jsonl")})
    assert max(steps(tmp_path / "run")) == 5
    state["full"] = False
    train()
    assert rows(tmp_path / "run") == rows(reference)


def test_a_log_that_never_finds_room_ends_the_run_when_all_else_is_saved(train, tmp_path, monkeypatch):
    state = {}
    with pytest.raises(RunFolderError, match=r"train\.log cannot be written: No space left on device"):
        train(at={6: lambda: fill(state, monkeypatch, "train.log")})
    assert len(list((tmp_path / "run/weights").glob("*.safetensors"))) == 4
    assert max(steps(tmp_path / "run")) == 16


def test_a_real_disk_that_fills_up_and_is_freed(train_in, reference, rows, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "none", disk]).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        filler = disk / "filler"

        def occupy():
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC

        train_in(disk / "run", at={6: occupy, 13: filler.unlink})
        assert rows(disk / "run") == rows(reference)
        assert "No space left on device" in log_of(disk / "run")
        for name in os.listdir(reference / "weights"):
            assert (disk / "run/weights" / name).read_bytes() == (reference / "weights" / name).read_bytes()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_second_ctrl_c_while_a_checkpoint_is_written_leaves_only_whole_ones(forked, tiny_file, tmp_path, wait_until):
    folder = tmp_path / "run"
    save = torch.save

    def slowly(content, file):
        save(content, file)
        if "model" in content:
            time.sleep(0.3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", slowly)
        process = forked("run", tiny_file, "training.epochs=100000", "scheduler=constant", "checkpoints.every_steps=1",
                         *PLAIN, "--output", folder, "--device", "cpu", "--no-plugins")  # fmt: skip
    wait_until(lambda: len(steps(folder)) > 1)
    for _ in range(2):
        process.send(signal.SIGINT)
        time.sleep(0.05)
    assert process.wait() == 130
    for step in steps(folder):
        checkpoints.load(checkpoints.path_of(folder / "checkpoints", step))


def test_the_best_state_that_finds_no_room_waits_in_memory_and_is_written_before_the_next(
    train, train_in, tmp_path, no_room_for
):
    keys = ("evaluation.every_steps=3", "callbacks=[]")
    train_in(tmp_path / "whole", *keys)
    whole = checkpoints.load((tmp_path / "whole/checkpoints/best").resolve())
    best = whole["state"]["step"]
    train(*keys, at={best - 1: lambda: no_room_for(best)})
    assert f"step-{best}.pt cannot be written: No space left on device" in log_of(tmp_path / "run")
    ours = checkpoints.load((tmp_path / "run/checkpoints/best").resolve())
    assert ours["state"]["step"] == best
    assert all(torch.equal(ours["model"][name], value) for name, value in whole["model"].items())
    for path in (tmp_path / "whole/weights").iterdir():
        assert path.read_bytes() == (tmp_path / "run/weights" / path.name).read_bytes()


def test_on_a_full_disk_every_checkpoint_is_told_once_though_the_best_is_tried_again_and_again(
    train, tmp_path, monkeypatch, wait_until
):
    run, save, tries = tmp_path / "run", torch.save, []

    def full(content, file):
        tries.append(content["state"]["step"])
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill():
        wait_until(lambda: is_at_rest(run, 4))  # it may still be in flight
        monkeypatch.setattr(torch, "save", full)

    def free():
        wait_until(lambda: tries == [5] * 5)  # after the steps 5, 6, 8, 10 and 12
        monkeypatch.setattr(torch, "save", save)

    # The weights stay as they are, so the first evaluation, after step 5, stays the best.
    keys = ("checkpoints.every_steps=2", "optimizer.lr=1e-12", "logging.to=[console, jsonl]")
    train(*keys, at={5: fill, 13: free})
    log = log_of(run)
    assert log.count("step-5.pt cannot be written: No space left on device (it needs") == 1
    for step in (6, 8, 10, 12):
        told = (
            rf"step-{step}\.pt is not tried, because the best, step-5\.pt, comes first and still cannot be written: No"
        )
        assert len(re.findall(told, log)) == 1, step
    assert "step-14.pt is saved: checkpoints are written again" in log
    assert (run / "checkpoints/best").resolve().name == "step-5.pt"
