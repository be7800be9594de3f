import json
import os
import re
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


def test_the_command_saves_says_how_to_go_on_and_ends_with_the_exit_code(tiny_file, tmp_path, wait_until, saved):
    """One run, three processes: Ctrl-C, SIGTERM, SIGKILL."""
    folder = tmp_path / "run"
    arguments = [sys.executable, "-m", "convrun", "run", str(tiny_file), *LONG, "--output", str(folder), "--no-plugins"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    expected = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "preempted"), (signal.SIGKILL, -9, "running")]
    last = 0
    for number, code, state in expected:
        done = steps_logged(folder)
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
        )
        wait_until(lambda d=done, p=process: steps_logged(folder) > d + 5 or p.poll() is not None)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == code, output + errors
        status = json.loads((folder / "status.json").read_text())
        assert status["state"] == state
        if number != signal.SIGKILL:
            found = re.fullmatch(
                rf"stopped after step (\d+) of 800000 \(\d+ to go\), all saved; go on with: convrun run {folder}\n",
                errors,
            )
            assert found, errors
            assert int(found[1]) == status["step"] == saved(folder)["/state/step"] > last
            last = status["step"]
        # A pipe is no terminal: plain lines.
        assert "\x1b" not in output
        assert re.search(r"^epoch 1?\d*/100000  step \d+/800000  loss ", output, re.M)


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
