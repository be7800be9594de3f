"""Where a run's processes come from: convrun's own, torchrun's, srun's; real ones, each with an import of torch."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from convrun.distributed.meeting.children import process_environment
from convrun.distributed.meeting.processes import checked_devices, in_each_process
from convrun.errors import UsageError
from convrun.process.signals import StopNow, StopRequest

CONVRUN = [sys.executable, "-m", "convrun", "run"]


def environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}


def started(arguments, folder):
    """`convrun run --devices 2` once it has saved a checkpoint; it would go on for long."""
    more = ("training.epochs=500", "checkpoints.every_steps=20", "--devices", "2")
    command = [*CONVRUN, *map(str, arguments), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    end = time.monotonic() + 150
    while not (folder / "checkpoints" / "latest").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    return process


@pytest.fixture(scope="module")
def stopped(same_run, tmp_path_factory):
    """A run whose parent was sent SIGTERM: folder, exit code, output."""
    folder = tmp_path_factory.mktemp("own") / "run"
    process = started(same_run(folder), folder)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    return folder, process.returncode, said


def test_a_signal_to_the_parent_saves_once_and_exits_with_75(stopped):
    folder, code, said = stopped
    assert code == 75, said
    assert said.count("all saved; go on with") == 1
    assert "Traceback" not in said
    assert json.loads((folder / "status.json").read_text())["state"] == "preempted"
    assert (folder / "logs" / "rank-1.log").exists()


def test_a_run_of_convruns_own_processes_goes_on_under_torchrun(stopped, same_run):
    folder = stopped[0]
    step = json.loads((folder / "status.json").read_text())["step"]
    changes = ("checkpoints.every_steps=20", f"training.steps={step + 5}", "training.epochs=null")
    allow = ("--allow-change", "training.steps", "--allow-change", "training.epochs")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command = [*torchrun, "-m", "convrun", "run", *map(str, same_run(folder, *changes)), *allow]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment())
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count(f"goes on after step {step} of {step + 5}") == 1
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def test_a_child_that_is_killed_is_named_and_nobody_stays_behind(same_run, tmp_path):
    folder = tmp_path / "run"
    process = started(same_run(folder), folder)
    children = children_of(process.pid)
    assert len(children) == 2
    victim = next(pid for pid in children if variable(pid, "RANK") == "1")
    os.kill(victim, signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said.count("error: rank 1 on ") == 1
    assert "was killed by signal 9" in said
    assert "Traceback" not in said
    assert "signal 9" in json.loads((folder / "status.json").read_text())["error"]
    assert not any(is_running(pid) for pid in children)


def test_without_their_parent_the_processes_end_too(same_run, tmp_path):
    process = started(same_run(tmp_path / "run"), tmp_path / "run")
    children = children_of(process.pid)
    assert len(children) == 2
    process.kill()
    process.wait()
    end = time.monotonic() + 120
    while any(is_running(pid) for pid in children) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in children)
    assert "it was killed" in json.loads((tmp_path / "run" / "status.json").read_text())["error"]


def is_running(pid):
    """Whether a process is there, and no zombie that nobody has looked after."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid):
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(name))
        except OSError:
            continue
    return found


def variable(pid, name):
    with open(f"/proc/{pid}/environ", "rb") as file:
        pairs = (pair.partition(b"=") for pair in file.read().split(b"\0"))
        return {key.decode(): value.decode() for key, _, value in pairs}.get(name)


def test_a_wrong_recipe_is_found_before_any_process_starts(convrun, same_run, tmp_path, monkeypatch):
    monkeypatch.setattr("convrun.distributed.meeting.children.Children.run", lambda self: pytest.fail("started"))
    code, _, said = convrun("run", *same_run(tmp_path / "run", "training.batch_size=25"), "--devices", "3")
    assert code == 2
    assert "25 images do not divide over 3 processes" in said
    assert "1 problem" in said


@pytest.mark.parametrize(
    ("variables", "cure"),
    [
        (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "--nproc_per_node",
        ),
        (
            {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
            | {"SLURM_STEP_NODELIST": "node[1-2]"},
            "--ntasks-per-node",
        ),
    ],
)
def test_devices_beside_a_launcher_are_refused_with_the_cure(variables, cure, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=cure):
        in_each_process(lambda group: None, StopRequest(), devices=2, device="cpu")


def test_no_process_is_started_after_a_signal_that_a_library_swallowed(monkeypatch):
    monkeypatch.setattr("convrun.distributed.meeting.children.Children.run", lambda self: pytest.fail("started"))
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    with pytest.raises(StopNow):
        in_each_process(lambda group: None, stop, devices=2, device="cpu")


def test_one_process_is_enough_on_the_cpu():
    seen = []
    in_each_process(seen.append, StopRequest(), device="cpu")
    assert [(group.size, group.is_first) for group in seen] == [(1, True)]


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_devices_is_a_number_or_auto(text):
    assert checked_devices("auto") is None
    assert checked_devices("8") == 8
    with pytest.raises(UsageError, match="number from 1 on"):
        checked_devices(text)


def test_a_library_call_in_one_of_several_processes_is_refused(train, monkeypatch):
    from convrun.errors import ConvrunError

    monkeypatch.setattr(
        os, "environ", os.environ | process_environment(2, 1, "x", {}) | {"RANK": "0", "LOCAL_RANK": "0"}
    )
    with pytest.raises(ConvrunError, match="started this as one of 2 processes"):
        train()
