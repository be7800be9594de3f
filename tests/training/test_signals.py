import json
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from convrun.errors import ConvrunError, Interrupted, Preempted
from convrun.process.signals import STOPPING, StopNow, StopRequest
from convrun.training.recording.checkpointer import Checkpointer

LONG = (
    "training.epochs=100000",
    "scheduler=constant",
    "logging.to=[console, jsonl]",
    "evaluation=null",
    "callbacks=[]",
)


@pytest.fixture
def stop():
    """A request that listens, in a run that has begun."""
    with StopRequest() as stop:
        stop.begin()
        yield stop


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_noted_and_the_handlers_are_back_afterwards(number):
    before = {n: signal.getsignal(n) for n in STOPPING}
    with StopRequest() as stop:
        stop.begin()
        assert not stop.is_set
        signal.raise_signal(number)
        assert stop.is_set
    assert {n: signal.getsignal(n) for n in STOPPING} == before
    assert isinstance(stop.error("x"), Interrupted if number == signal.SIGINT else Preempted)
    assert stop.error("x").exit_code == (130 if number == signal.SIGINT else 75)


def test_a_second_ctrl_c_stops_at_once(stop):
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_the_users_word_stands_after_a_sigterm(stop):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert stop.signal == signal.SIGINT


def test_a_first_ctrl_c_after_a_sigterm_is_no_second_one(stop):
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert stop.signal == signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_stays_ignored(number):
    """`nohup convrun run` ignores SIGHUP, a script's `convrun run &` SIGINT."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(number)
            assert not stop.is_set
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def after(self, seconds):
        """What lets so many seconds pass."""
        return lambda: setattr(self, "now", self.now + seconds)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("convrun.process.signals.time", clock)
    return clock


def test_after_the_time_a_start_saves_and_says_how_to_go_on(clock, train, reference, rows, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(
        Preempted, match=r"^training\.stop_after: 1h30m have passed; stopped after step 6 of 16 \(10 to go\), all"
    ) as end:
        train("training.stop_after=90m", at={3: clock.after(5399), 6: clock.after(1)})
    assert end.value.exit_code == 75
    assert str(end.value).endswith(f"go on with: convrun run {folder}")
    assert json.loads((folder / "status.json").read_text())["state"] == "preempted"
    # Each start has its own time, and another limit needs no leave.
    with pytest.raises(Preempted, match="stop_after: 2d have passed; stopped after step 9 "):
        train("training.stop_after=2d", at={8: clock.after(172799), 9: clock.after(1)})
    assert train().step == 16
    assert rows(folder) == rows(reference)


def test_the_time_ends_an_evaluation_in_its_midst(clock, train, reference, rows, saved, tmp_path):
    with pytest.raises(Preempted, match="stop_after: 1m have passed; stopped after step 5 "):
        train("training.stop_after=1m", at={5: clock.after(60)})
    assert saved(tmp_path / "run")["/state/evaluated_step"] == 0
    assert train("training.stop_after=1m").step == 16
    assert rows(tmp_path / "run") == rows(reference)


def test_a_time_that_is_over_when_the_last_step_is_done_ends_nothing_early(clock, train):
    outcome = train("training.stop_after=1m", at={15: clock.after(59)})
    assert outcome.step == 16


def test_a_time_too_short_for_one_step_is_an_error_lest_a_scheduler_start_it_for_ever(clock, train, monkeypatch):
    from convrun.training import run

    build = run.build_model
    monkeypatch.setattr(run, "build_model", lambda plan: (clock.after(61)(), build(plan))[1])
    with pytest.raises(
        ConvrunError, match=r"stop_after \(1m\) was over before this start had done a step; give it lon"
    ) as end:
        train("training.stop_after=1m")
    assert end.value.exit_code == 1
    assert train().step == 16


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_the_signals_of_schedulers_save_and_end_with_75(number, train, tmp_path):
    with pytest.raises(Preempted, match="stopped after step 3 of 16") as end:
        train(at={3: lambda: signal.raise_signal(number)})
    assert end.value.exit_code == 75
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "preempted"


def steps_logged(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").is_file() else []
    return len(lines)


class Subprocess:
    """`convrun ARGUMENTS` from the start, once: a fork of this process may hide what an import does to signals."""

    def __init__(self, *arguments):
        self.output = arguments[-1].with_suffix(".txt")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", "convrun", *map(str, arguments)]
        with self.output.open("a") as stream:
            self._process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        self.send, self.wait = self._process.send_signal, self._process.wait


def test_the_command_saves_says_how_to_go_on_and_ends_with_the_exit_code(
    forked, tiny_file, tmp_path, wait_until, saved
):
    """One run, three processes: Ctrl-C, SIGKILL, SIGTERM."""
    folder, last = tmp_path / "run", 0
    arguments = ["run", tiny_file, *LONG, "--no-plugins", "--device", "cpu", "--output", folder]
    for start, number, code, state in (
        (forked, signal.SIGINT, 130, "interrupted"),
        (forked, signal.SIGKILL, -9, "running"),
        (Subprocess, signal.SIGTERM, 75, "preempted"),
    ):
        done = steps_logged(folder)
        process = start(*arguments)
        wait_until(lambda done=done: steps_logged(folder) > done + 5)
        process.send(number)
        assert process.wait() == code, process.output.read_text()
        status = json.loads((folder / "status.json").read_text())
        assert status["state"] == state
        output = process.output.read_text()
        # A file is no terminal: plain lines.
        assert "\x1b" not in output
        assert re.search(r"^epoch 1?\d*/100000  step \d+/800000  loss ", output, re.M)
        if number != signal.SIGKILL:
            pattern = r"stopped after step (\d+) of 800000 \(\d+ to go\), all saved; go on with: convrun run (.*)"
            found = re.fullmatch(pattern, output.splitlines()[-1])
            assert found, output
            assert found[2] == str(folder)
            assert int(found[1]) == status["step"] == saved(folder)["/state/step"] > last
            last = status["step"]


@pytest.mark.parametrize("closed", ["a pipe without a reader", "/dev/full"])
def test_a_run_ends_well_though_nobody_can_read_its_output(closed, forked, tiny_file, tmp_path):
    folder, arguments = tmp_path / "run", ["run", tiny_file, "--no-plugins", "--device", "cpu"]
    if closed == "/dev/full":
        forked.output.symlink_to(closed)
    else:
        os.mkfifo(forked.output)
        reader = os.open(forked.output, os.O_RDONLY | os.O_NONBLOCK)
    process = forked(*arguments, "logging.to=[console, jsonl]", "--output", folder)
    if closed != "/dev/full":
        os.read(reader, 1) if select.select([reader], [], [], 60)[0] else None
        os.close(reader)
    assert process.wait() == 0
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def test_two_ctrl_c_in_a_long_step_end_it_at_once_and_leave_the_checkpoint(
    forked_with_gate, forked, ctrl_c_twice, tmp_path, wait_until
):
    folder = tmp_path / "run"
    sixth = lambda _step, batch: batch.step == 5  # noqa: E731  (from 0)
    process = forked_with_gate("convrun.training.step.Step.accumulate", *LONG, when=sixth)
    wait_until(lambda: json.loads((folder / "status.json").read_text()).get("saved_step") == 4)  # in the background
    ctrl_c_twice(process)
    assert process.wait() == 130
    last_line = forked.output.read_text().splitlines()[-1]
    assert (
        last_line
        == f"stopped at once, in the midst of step 6; go on from the last checkpoint with: convrun run {folder}"
    )
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", 5)
    assert [path.name for path in folder.glob("checkpoints/*.pt")] == ["step-4.pt"]


def is_of(name):
    """Whether a descriptor is of a file with this in its path."""
    return lambda descriptor: name in os.readlink(f"/proc/self/fd/{descriptor}")


def test_a_second_ctrl_c_while_a_checkpoint_is_written_does_not_wait_for_it(
    forked, forked_with_gate, gate, ctrl_c_twice, tmp_path, train, reference, rows, monkeypatch
):
    run, waits, save = tmp_path / "run", tmp_path / "waits", Checkpointer.save

    def tell_and_save(checkpointer, state):
        if gate.reached.exists():  # the next one: it waits for that of step 8
            waits.touch()
        save(checkpointer, state)

    monkeypatch.setattr(Checkpointer, "save", tell_and_save)
    process = forked_with_gate("os.fsync", when=is_of("step-8"))
    ctrl_c_twice(process, waits)
    assert process.wait() == 130
    assert "Traceback" not in forked.output.read_text()
    assert not (run / "checkpoints" / "step-8.pt").exists()
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    assert train().step == 16
    assert rows(run) == rows(reference)
    assert not list(run.rglob("*.draft"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_weights_are_exported_lets_them_be_finished(number, forked_with_gate, gate, tmp_path):
    process = forked_with_gate("os.fsync", when=is_of("weights/.last"))
    process.send(number)
    time.sleep(0.1)
    gate.may_go.write_text("")
    assert process.wait() == 0
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"


def test_two_ctrl_c_while_the_weights_are_exported_stop_it_and_a_later_start_exports_them(
    forked, forked_with_gate, ctrl_c_twice, tmp_path, train
):
    process = forked_with_gate("os.fsync", when=is_of("weights/.last"))
    ctrl_c_twice(process)
    assert process.wait() == 130
    run = tmp_path / "run"
    assert forked.output.read_text().splitlines()[-1] == (
        f"stopped at once, after the last step; go on from the last checkpoint with: convrun run {run}"
    )
    assert not list(run.glob("weights/*.safetensors"))
    outcome = train()
    assert (outcome.step, outcome.was_finished) == (16, False)
    assert sorted(path.stem for path in run.glob("weights/*.safetensors")) == ["best", "best_ema", "last", "last_ema"]


class Destroyed:
    """Meets a Ctrl-C in its end, where exceptions go nowhere."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_a_second_ctrl_c_amid_a_destructor_is_not_lost_and_shows_no_traceback(capsys):
    def wait(stop):
        stop.begin()
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        held = Destroyed()
        del held
        time.sleep(60)

    with pytest.raises(StopNow), StopRequest() as stop:
        wait(stop)
    assert capsys.readouterr().err == ""


def test_what_else_a_destructor_raises_is_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(str(unraisable.exc_value)))
    before = sys.unraisablehook

    class Broken:
        def __del__(self):
            raise ValueError("not so")

    with StopRequest():
        held = Broken()
        del held
    assert told == ["not so"]
    assert sys.unraisablehook is before
