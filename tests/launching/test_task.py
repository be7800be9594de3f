"""What each process of a launched run does, and what is noted when all have ended."""

import json
import os
import subprocess
import sys

import pytest

from convrun import task
from convrun.launching import ended


@pytest.fixture
def launched(run_folder, launch_json, tmp_path, monkeypatch):
    """A run folder with a launch.json that names this test's folder as the working folder."""
    for name in ("RANK", "SLURM_PROCID", "SLURMD_NODENAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    folder = run_folder(launch__json=launch_json(working_folder=str(tmp_path)))
    (folder / "logs").mkdir()
    return folder


@pytest.fixture
def convrun_ends(monkeypatch):
    """Puts a function in the place of convrun's command line."""

    def put(function):
        monkeypatch.setattr("convrun.entry.main", function)
        monkeypatch.setattr(task.signal, "signal", lambda *_: None)

    return put


def test_a_node_that_does_not_see_the_folder_says_so_by_name(launched, capsys, monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "node17")
    assert task.main([str(launched / "nowhere"), "abc"]) == 1
    assert "error: node node17 does not see the run folder" in capsys.readouterr().err
    assert not (launched / "nowhere").exists()


def test_a_node_that_sees_another_folder_of_that_path_says_so(launched, capsys):
    assert task.main([str(launched), "another nonce"]) == 1
    assert "sees another" in capsys.readouterr().err
    (launched / "launch.json").unlink()
    assert task.main([str(launched), "abc"]) == 1


def test_a_node_without_the_working_folder_says_so(launched, launch_json, capsys):
    (launched / "launch.json").write_text(json.dumps(launch_json(working_folder="/nowhere/at/all")))
    assert task.main([str(launched), "abc"]) == 1
    assert "does not see the working folder /nowhere/at/all" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 1, 3, 75])
def test_rank_0_leaves_its_exit_code_and_ends_with_it(launched, convrun_ends, code):
    convrun_ends(lambda: sys.exit(code))
    assert task.main([str(launched), "abc"]) == code
    assert (launched / "logs" / "exits" / "rank-0").read_text().split()[0] == str(code)


def test_the_command_is_convrun_run_on_the_folder(launched, convrun_ends):
    seen = []
    convrun_ends(lambda: seen.append(list(sys.argv)))
    task.main([str(launched), "abc", "--devices", "2"])
    assert seen == [["convrun", "run", str(launched), "--devices", "2"]]


def test_a_bug_is_an_exit_code_too(launched, convrun_ends, capsys):
    def fail():
        raise AttributeError("x")

    convrun_ends(fail)
    assert task.main([str(launched), "abc"]) == 1
    assert capsys.readouterr().err.endswith("error: AttributeError: x\n")


def test_another_rank_that_saved_does_not_make_srun_kill_rank_0(launched, convrun_ends, monkeypatch):
    """`srun --kill-on-bad-exit` ends all as soon as one ends with another code than 0."""
    monkeypatch.setenv("SLURM_PROCID", "2")
    convrun_ends(lambda: sys.exit(75))
    assert task.main([str(launched), "abc"]) == 0
    assert (launched / "logs" / "exits" / "rank-2").read_text().startswith("75 ")


def test_another_rank_that_failed_gives_rank_0_time_to_say_so(launched, convrun_ends, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    convrun_ends(lambda: sys.exit(1))
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            (launched / "logs" / "exits" / "rank-0").touch()

    monkeypatch.setattr(task.time, "sleep", sleep)
    assert task.main([str(launched), "abc"]) == 1
    assert len(waited) == 3


@pytest.mark.parametrize("number", ["SIGUSR2", "SIGTERM", "SIGUSR1"])
def test_a_signal_before_training_has_begun_means_start_again(launched, tmp_path, number):
    """In the seconds in which Python imports; the default would be death, and a failed job."""
    code = (
        "import os, signal, sys, convrun.entry; from convrun.task import main\n"
        f"convrun.entry.main = lambda: (os.kill(os.getpid(), signal.{number}), signal.pause())\n"
        f"sys.exit(main([{str(launched)!r}, 'abc']))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=60).returncode == 75


# What is noted at the end.


@pytest.fixture
def exits(launched):
    folder = launched / "logs" / "exits"
    folder.mkdir()
    (folder / "started").touch()
    return folder


def status(folder):
    found = json.loads((folder / "status.json").read_text())
    return found["state"], found.get("error", "")


@pytest.mark.parametrize(("code", "state"), [(1, "failed"), (2, "failed"), (3, "diverged"), (75, "preempted")])
def test_a_run_that_could_not_say_how_it_ended_gets_its_status(launched, exits, code, state):
    assert ended.note_end(launched, "abc", code) == code
    assert status(launched)[0] == state
    assert (exits / "job").read_text() == f"{code}\n"


def test_the_step_that_was_reached_is_kept(launched, exits):
    (launched / "status.json").write_text('{"state": "running", "step": 40, "total_steps": 100}')
    ended.note_end(launched, "abc", 137)
    found = json.loads((launched / "status.json").read_text())
    assert (found["state"], found["step"], found["total_steps"]) == ("failed", 40, 100)
    assert "killed by SIGKILL (out of memory?)" in found["error"]


def test_the_rank_and_node_that_failed_and_its_error_are_named(launched, exits):
    (exits / "rank-2").write_text("1 node3\n")
    (launched / "logs" / "launch.log").write_text("tiny starts\nerror: /data/x.jpg is broken\nsrun: bye\n")
    ended.note_end(launched, "abc", 1)
    assert status(launched) == ("failed", "rank 2 on node3 ended with exit code 1: /data/x.jpg is broken")


def test_an_error_of_an_earlier_start_is_not_the_reason(launched, exits):
    log = launched / "logs" / "launch.log"
    log.write_text("tiny starts\nerror: no space\n")
    (exits / "started").write_text(f"{log.stat().st_size}\n")
    with log.open("a") as file:
        file.write("tiny starts\n")
    ended.note_end(launched, "abc", 137)
    assert status(launched)[1].startswith("a process was killed by SIGKILL (out of memory?); see convrun logs ")


def test_an_error_that_names_its_rank_is_not_laid_to_another_one(launched, exits):
    (exits / "rank-1").write_text("1 node2\n")
    (launched / "logs" / "launch.log").write_text("error: rank 0 on node1: no such folder\n")
    ended.note_end(launched, "abc", 1)
    assert status(launched) == ("failed", "rank 0 on node1: no such folder")


def test_what_the_run_itself_said_in_this_start_stands_and_is_the_exit_code(launched, exits):
    (launched / "status.json").write_text('{"state": "diverged", "error": "the loss is nan"}')
    assert ended.note_end(launched, "abc", 137) == 3
    assert status(launched) == ("diverged", "the loss is nan")


def test_what_it_said_in_an_earlier_start_does_not(launched, exits):
    (launched / "status.json").write_text('{"state": "preempted", "step": 3, "total_steps": 9}')
    os.utime(launched / "status.json", (1, 1))
    assert ended.note_end(launched, "abc", 1) == 1
    assert status(launched)[0] == "failed"


def test_a_folder_that_was_launched_again_is_left_alone(launched, exits):
    assert ended.note_end(launched, "of an earlier launch", 1) == 1
    assert not (launched / "status.json").exists()
    assert not (exits / "job").exists()
