"""Runs in the background: the supervisor, with small commands in the place of training, and once for real."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from convrun.contracts.launcher import Job, Submission
from convrun.launching.background import Background
from convrun.launching.log_files import tail
from convrun.launching.run_status import run_status
from convrun.run_folder.process_identity import this_process


@pytest.fixture
def supervised(run_folder, launch_json, tmp_path):
    """Starts a supervisor over shell commands, one for each of the runs that it makes; gives (folders, launched)."""
    started = []

    def start(*commands):
        folders = [run_folder(f"runs/tiny/{i}") for i in range(len(commands))]
        work = []
        for folder, command in zip(folders, commands, strict=True):
            (folder / "logs").mkdir()
            work.append({"folder": str(folder), "nonce": "abc", "command": ["sh", "-c", command]})
        process = subprocess.Popen([sys.executable, "-m", "convrun.launching.background"], stdin=subprocess.PIPE)
        with process.stdin as pipe:
            pipe.write(json.dumps(work).encode())
        started.append(process)
        identity = dataclasses.replace(this_process(), pid=process.pid, started=_start_of(process.pid))
        for folder in folders:
            info = {"process": dataclasses.asdict(identity), "folder": str(folder)}
            launch = launch_json(launcher={"name": "local", "processes": None}, info=info)
            (folder / "launch.json").write_text(json.dumps(launch))
        return folders, process

    yield start
    for process in started:
        process.kill()
        process.wait()


def _start_of(pid):
    from convrun.run_folder.process_identity import process_numbered

    return process_numbered(pid).started


def states(folders):
    return [run_status(folder).state for folder in folders]


def test_runs_go_one_after_the_other_and_each_exit_code_is_kept(supervised, wait_until, tmp_path):
    gate = tmp_path / "gate"
    first = f"echo one; while [ ! -e {gate} ]; do sleep 0.02; done; exit 3"
    folders, process = supervised(first, "echo two; exit 0", "kill -9 $$")
    wait_until(lambda: states(folders) == ["starting", "waiting", "waiting"])
    gate.touch()
    assert process.wait() == 0
    codes = [(folder / "logs" / "exits" / "job").read_text() for folder in folders]
    assert codes == ["3\n", "0\n", "137\n"]
    assert (folders[1] / "logs" / "launch.log").read_text() == "two\n"
    assert states(folders)[0] == "diverged"
    assert states(folders)[2] == "failed"
    assert "killed by SIGKILL" in run_status(folders[2]).why


def test_one_of_a_sweep_is_cancelled_without_the_others(supervised, wait_until, convrun, tmp_path):
    long = "trap 'exit 75' TERM; echo begun; while :; do sleep 0.02; done"
    folders, process = supervised(long, "exit 0", "exit 0")
    wait_until(lambda: "begun" in tail(folders[0] / "logs" / "launch.log"))
    assert convrun("cancel", folders[2])[0] == 0
    assert states(folders)[2] == "cancelled"  # at once, though its turn has not come
    assert convrun("cancel", folders[0])[0] == 0
    assert process.wait() == 0
    assert states(folders)[0] == states(folders)[2] == "cancelled"
    assert [(f / "logs" / "exits" / "job").read_text() for f in folders] == ["75\n", "0\n", "130\n"]


CANCELLED_MEANWHILE = """
import json, sys
from pathlib import Path
from convrun.launching import background
note = background.write_whole
def cancel_and_note(path, content):
    (path.parent / "cancelled").touch()
    background.Background(None).cancel({"process": SUPERVISOR, "folder": str(path.parents[1])})
    note(path, content)
background.write_whole = cancel_and_note
background.supervise(json.load(sys.stdin))
"""


def test_a_run_that_is_cancelled_while_it_is_started_ends(run_folder, launch_json):
    """Before anybody can know its process."""
    folder = run_folder(launch__json=launch_json())
    (folder / "logs").mkdir()
    script = CANCELLED_MEANWHILE.replace("SUPERVISOR", repr(dataclasses.asdict(this_process())))
    work = [{"folder": str(folder), "nonce": "abc", "command": ["sleep", "60"]}]
    subprocess.run([sys.executable, "-c", script], input=json.dumps(work), text=True, check=True)
    assert (folder / "logs" / "exits" / "job").read_text() == "143\n"


def test_a_signal_to_the_supervisor_reaches_the_run_and_ends_those_after_it(supervised, wait_until):
    folders, process = supervised("trap 'exit 75' TERM; echo begun; while :; do sleep 0.02; done", "echo two")
    wait_until(lambda: "begun" in tail(folders[0] / "logs" / "launch.log"))
    process.terminate()
    process.wait()
    assert [(f / "logs" / "exits" / "job").read_text() for f in folders] == ["75\n", "130\n"]


def test_a_supervisor_that_was_killed_leaves_no_run_waiting_for_ever(supervised, wait_until):
    folders, process = supervised("exec sleep 60", "echo two")
    wait_until(lambda: states(folders) == ["starting", "waiting"])
    process.kill()
    process.wait()
    child = json.loads((folders[0] / "logs" / "process.json").read_text())["pid"]
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: states(folders) == ["failed", "failed"])
    assert run_status(folders[1]).why == "the job ended (GONE, its process is gone)"


def test_a_run_that_was_launched_trains_on_when_the_terminal_is_gone(work, tmp_path, wait_until):
    """For real: a terminal that hangs up, and `convrun launch` in it."""
    command = [sys.executable, "-m", "convrun", "launch", "recipe.yaml", "--local", "-o", "run", "training.epochs=1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    leader = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True, env=environment)
    out, _ = leader.communicate(timeout=60)
    assert leader.returncode == 0
    assert "in the background, process " in out
    os_group_is_gone(leader.pid)
    end = time.monotonic() + 100
    while run_status(work / "run").exit_code is None and time.monotonic() < end:
        time.sleep(0.2)
    assert run_status(work / "run").state == "finished", (work / "run" / "logs" / "launch.log").read_text()
    assert "finished after step 8" in (work / "run" / "logs" / "launch.log").read_text()


def test_a_users_file_that_is_named_like_a_module_is_not_imported(work, wait_until):
    """Python would look for modules in the working folder first."""
    for name in ("random", "json", "pathlib"):
        (work / f"{name}.py").write_text("raise SystemExit('not that one')")
    made = Job("n", work / "run", work, "abc")
    (work / "run" / "logs").mkdir(parents=True)
    (info,) = Background(None).submit(Submission("n", work / "run", (made,)))
    wait_until(lambda: Background(None).query([info])[0].state == "ended")
    assert "not that one" not in tail(work / "run" / "logs" / "launch.log")
    assert "sees another" in tail(work / "run" / "logs" / "launch.log")  # it got as far as to look for launch.json


def test_a_sweep_may_be_larger_than_a_command_line(tmp_path, wait_until):
    """An argument of a program has 128 KiB at most."""
    jobs = tuple(Job("n", tmp_path / f"{i}-{'x' * 200}", tmp_path, "abc") for i in range(400))
    for job in jobs:
        (job.folder / "logs").mkdir(parents=True)
        (job.folder / "logs" / "cancelled").touch()  # so that nothing is started
    (tmp_path / "logs").mkdir()
    infos = Background(None).submit(Submission("n", tmp_path, jobs))
    assert len(infos) == 400
    wait_until(lambda: Background(None).query(infos[:1])[0].word == "GONE")
    assert tail(tmp_path / "logs" / "launch.log") == ""


def os_group_is_gone(pid):
    """What a terminal that closes sends to its processes."""
    try:
        os.killpg(pid, signal.SIGHUP)
    except ProcessLookupError:
        return


def test_the_number_of_processes_is_handed_to_convrun_run(tmp_path):
    job = Job("n", tmp_path, tmp_path, "abc")
    assert Background(None).command(job)[-2:] == [str(tmp_path), "abc"]
    assert Background(4).command(job)[-2:] == ["--devices", "4"]
