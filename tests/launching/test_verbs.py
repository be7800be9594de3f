"""`status`, `logs`, `cancel` and `list runs` on folders as runs leave them."""

import io
import json
import signal
import subprocess
import sys
import threading

import pytest

from convrun.launching.log_files import follow, tail

DONE = {"state": "finished", "step": 16, "total_steps": 16, "host": "h", "time": "t"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_list_runs_shows_those_below_runs_those_of_a_sweep_together(here, run_folder, launch_json, convrun):
    sweep = {"sweep": "s", "info": {}}
    run_folder("runs/tiny/one", status__json=DONE)
    run_folder("runs/tiny/s/1-b", status__json=DONE, launch__json=launch_json(values={"seed": "1"}, **sweep))
    run_folder("runs/tiny/s/0-a", launch__json=launch_json(values={"seed": "0"}, **sweep))
    run_folder("runs/other/two", status__json={**DONE, "state": "failed", "error": "no\nspace"})
    (here / "runs" / "tiny" / "notes").mkdir()
    code, out, _ = convrun("list", "runs")
    assert code == 0
    names = [line.split()[0] for line in out.splitlines()]
    assert names == ["run", "runs/other/two", "runs/tiny/one", "runs/tiny/s/0-a", "runs/tiny/s/1-b"]
    assert convrun("status")[1] == out
    assert [r["folder"] for r in json.loads(convrun("list", "runs", "tiny/s", "--format", "json")[1])] == [
        "runs/tiny/s/0-a",
        "runs/tiny/s/1-b",
    ]
    assert "no space" in convrun("list", "runs", "other")[1]


def test_where_there_are_none_that_is_said(here, convrun):
    assert convrun("status")[:2] == (0, "there are no runs below runs/\n")
    assert convrun("list", "runs", "x*", "--format", "json")[:2] == (0, "[]\n")


def test_a_run_is_named_by_its_path_or_by_its_name(here, run_folder, convrun):
    run_folder("runs/tiny/20260101-one", status__json=DONE)
    for name in ("runs/tiny/20260101-one", "tiny/20260101-one", "20260101-one", "runs/tiny"):
        code, out, _ = convrun("status", name)
        assert (code, "state        finished" in out) == (0, True)


@pytest.mark.parametrize("verb", ["status", "logs", "cancel"])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("runs/tiny/20260101-onne", "did you mean runs/tiny/20260101-one?"),
        ("zzz", "convrun list runs"),
        ("x" * 5000, ""),
    ],
)
def test_what_is_no_run_is_a_usage_error_that_names_the_nearest(here, run_folder, convrun, verb, name, hint):
    run_folder("runs/tiny/20260101-one", status__json=DONE)
    code, _, error = convrun(verb, name)
    assert (code, hint in error) == (2, True)
    assert "Traceback" not in error


def test_the_log_is_the_launchs_or_that_of_the_foreground_or_a_ranks(here, run_folder, convrun):
    folder = run_folder(status__json=DONE, **{"train.log": "trained\n"})
    assert convrun("logs", folder)[:2] == (0, "trained\n")
    (folder / "logs").mkdir()
    (folder / "logs" / "launch.log").write_text("launched\n")
    (folder / "logs" / "rank-2.log").write_text("two\n")
    assert convrun("logs", folder)[1] == "launched\n"
    assert convrun("logs", folder, "--rank", 0)[1] == "trained\n"
    assert convrun("logs", folder, "--rank", 2)[1] == "two\n"
    code, _, error = convrun("logs", folder, "--rank", 1)
    assert (code, "there are rank-2.log" in error) == (2, True)
    assert convrun("logs", folder, "--follow")[:2] == (0, "launched\n")  # it is over: nothing to wait for


def test_following_prints_whole_lines_as_they_come_until_the_run_is_over(tmp_path):
    path, out = tmp_path / "log", io.StringIO()
    steps = iter(["", "one\ntw", "o\n", "", "three\n"])

    def is_over():
        step = next(steps, None)
        if step:
            with path.open("a") as file:
                file.write(step)
        return step is None

    follow(path, is_over, out, every=0)
    assert out.getvalue() == "one\ntwo\nthree\n"


def test_following_survives_a_log_that_is_written_anew(tmp_path):
    path, out = tmp_path / "log", io.StringIO()
    path.write_text("a long first line\n")
    steps = iter([None, "new\n"])

    def is_over():
        text = next(steps, "end")
        if text not in (None, "end"):
            path.write_text(text)
        return text == "end"

    follow(path, is_over, out, every=0)
    assert out.getvalue() == "a long first line\nnew\n"


def test_the_end_of_a_long_log_starts_with_a_whole_line(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"\xff" * 100 + b"\n" + b"line\n" * 10)
    assert tail(path, 12) == "line\nline\n"
    assert tail(tmp_path / "nowhere") == ""


def test_a_run_in_the_foreground_of_this_machine_is_cancelled_by_a_signal(here, run_folder, convrun, wait_until):
    folder = run_folder(status__json={**DONE, "state": "running", "step": 3})
    code = (
        "import signal, sys; from pathlib import Path; from convrun.run_folder.lock import RunLock\n"
        "lock = RunLock(Path(sys.argv[1])); lock.acquire()\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print('ready', flush=True)\n"
        "signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        assert "state        running" in convrun("status", folder)[1]
        assert convrun("cancel", folder)[0] == 0
        assert process.wait(timeout=30) == 75
    finally:
        process.kill()
    assert "state        killed" in convrun("status", folder)[1]  # this one wrote no status


def test_a_run_that_is_over_cannot_be_cancelled(here, run_folder, convrun):
    folder = run_folder(status__json=DONE)
    code, _, error = convrun("cancel", folder)
    assert (code, "is finished already" in error) == (2, True)


def test_slurms_refusal_to_cancel_is_told_and_the_run_stays_as_it_was(here, run_folder, launch_json, convrun, program):
    program("squeue", "echo '7|RUNNING|None|n1|N/A|tiny-1'")
    program("scancel", "echo 'scancel: error: Kill job error on job id 7: Access/permission denied' >&2; exit 1")
    folder = run_folder(launch__json=launch_json())
    (folder / "logs").mkdir()
    code, _, error = convrun("cancel", folder)
    assert (code, "Access/permission denied" in error) == (1, True)
    assert not (folder / "logs" / "cancelled").exists()


def test_waiting_ends_with_the_runs_own_exit_code(work, convrun, program, tmp_path, monkeypatch):
    monkeypatch.setattr("convrun.launching.watching.ASK_SECONDS", 0.1)
    program("sbatch", "echo Submitted batch job 7")
    name = f'sed -n \'s/.*job_name": "\\(.*\\)".*/\\1/p\' {tmp_path}/run/launch.json'
    word = f"[ -e {tmp_path}/ended ] && word='FAILED|x' || word='RUNNING|None'"
    program("squeue", f'{word}; echo "7|$word|n1|N/A|$({name})"')

    def end():
        (tmp_path / "run" / "status.json").write_text(
            '{"state": "diverged", "step": 3, "total_steps": 9, "error": "nan"}'
        )
        (tmp_path / "run" / "logs" / "launch.log").write_text("error: nan\n")
        (tmp_path / "ended").touch()

    timer = threading.Timer(1.0, end)
    timer.start()
    code, out, _ = convrun("launch", "--slurm", "check_folder=false", "-o", "run", "--wait")
    timer.join()
    assert (code, out.splitlines()[-1]) == (3, "error: nan")


def test_ctrl_c_while_following_leaves_the_run_alone(here, run_folder, tmp_path):
    folder = run_folder(status__json={**DONE, "state": "running"}, **{"train.log": "line\n"})
    holder = (
        "import sys, signal; from pathlib import Path; from convrun.run_folder.lock import RunLock; "
        "RunLock(Path(sys.argv[1])).acquire(); print('ready', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", holder, str(folder)], stdout=subprocess.PIPE, text=True)
    command = [sys.executable, "-m", "convrun", "logs", str(folder), "-f"]
    follower = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        assert follower.stdout.readline() == "line\n"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=30) == 130
        assert process.poll() is None
    finally:
        process.kill()
        follower.kill()
