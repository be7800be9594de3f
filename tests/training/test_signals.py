import json
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from convrun.errors import Interrupted, Preempted
from convrun.training.signals import STOPPING, StopRequest

LONG = (
    "training.epochs=100000",
    "scheduler=constant",
    "logging.to=[console, jsonl]",
    "evaluation=null",
    "callbacks=[]",
)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_noted_and_the_handlers_are_back_afterwards(number):
    before = {n: signal.getsignal(n) for n in STOPPING}
    with StopRequest() as stop:
        assert not stop.is_set
        signal.raise_signal(number)
        assert stop.is_set
    assert {n: signal.getsignal(n) for n in STOPPING} == before
    assert isinstance(stop.error("x"), Interrupted if number == signal.SIGINT else Preempted)
    assert stop.error("x").exit_code == (130 if number == signal.SIGINT else 75)


def test_a_second_ctrl_c_stops_at_once():
    with StopRequest():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_users_word_stands_after_a_sigterm():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stop.signal == signal.SIGINT


def test_a_first_ctrl_c_after_a_sigterm_is_no_second_one():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert stop.signal == signal.SIGINT


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


def test_two_ctrl_c_in_a_long_step_end_it_at_once_and_leave_the_checkpoint(forked, tiny_file, tmp_path, wait_until):
    from convrun.training.trainer import Trainer

    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:  # inherited by the fork: from the 6th step on, a step takes an hour
        accumulate = Trainer.accumulate
        patch.setattr(
            Trainer,
            "accumulate",
            lambda self, batch: accumulate(self, batch) if batch.step < 5 else time.sleep(3600),
        )
        process = forked("run", tiny_file, *LONG, "--output", folder, "--device", "cpu", "--no-plugins")
    wait_until(lambda: (folder / "checkpoints" / "step-4.pt").is_file())
    time.sleep(0.3)
    process.send(signal.SIGINT)
    time.sleep(0.2)
    process.send(signal.SIGINT)
    assert process.wait() == 130
    last_line = forked.output.read_text().splitlines()[-1]
    assert (
        last_line
        == f"stopped at once, in the midst of step 6; go on from the last checkpoint with: convrun run {folder}"
    )
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", 5)
    assert [path.name for path in folder.glob("checkpoints/*.pt")] == ["step-4.pt"]
