"""`status`, `logs`, `cancel` and `list runs` on folders as runs leave them."""

import dataclasses
import io
import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from convrun.launching.run_status import run_status
from convrun.launching.run_table import runs_text
from convrun.launching.watching import follow_run

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
    for left in (".Trash-1000", "@eaDir", "tiny/__MACOSX"):
        run_folder(f"runs/{left}/three", status__json=DONE)
    code, out, _ = convrun("list", "runs")
    assert code == 0
    assert [line.rstrip() for line in out.splitlines()] == [
        "state     step   left  top-1  run  job  why",
        "runs/other/",
        "failed    16/16        -      two       no space",
        "runs/tiny/",
        "finished  16/16        -      one",
        "runs/tiny/s/",
        "unknown   -            -      0-a       launcher/slurm no longer knows it",
        "finished  16/16        -      1-b",
    ]
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
    assert (code, "other ranks have rank-2.log" in error) == (2, True)
    assert convrun("logs", folder, "--follow")[:2] == (0, "launched\n")  # it is over: nothing to wait for


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
    assert (code, "is over (finished)" in error) == (2, True)


def test_in_eighty_columns_state_progress_and_the_runs_name_are_there(run_folder, launch_json):
    running = {"state": "running", "step": 123456, "total_steps": 375300}
    name = "20260101-120000-ab12cd"
    folder = run_folder(f"runs/convnext_tiny_in1k/{name}", status__json=running, launch__json=launch_json())
    run = dataclasses.replace(run_status(folder), state="interrupted", seconds_left=36000.0)
    row = runs_text([run], 80).split("\n")
    assert all(len(line) <= 80 for line in (row[0], row[2]))
    assert row[2].startswith(f"interrupted  123456/375300  10 h 00 min  -      {name}  7")


def test_a_run_that_goes_on_in_the_foreground_after_its_job_is_over_is_running_and_can_be_cancelled(
    here, run_folder, launch_json, convrun, program
):
    program("squeue", "echo '7|CANCELLED|None|n1|N/A|tiny-1'")
    folder = run_folder(status__json={**DONE, "state": "running", "step": 3}, launch__json=launch_json())
    (folder / "logs").mkdir()
    (folder / "logs" / "cancelled").touch()
    code = (
        "import signal, sys; from pathlib import Path; from convrun.run_folder.lock import RunLock\n"
        "RunLock(Path(sys.argv[1])).acquire(); print('ready', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        assert "state        running" in convrun("status", folder)[1]
        assert convrun("cancel", folder)[0] == 0
        assert process.wait(timeout=30) == -signal.SIGTERM
    finally:
        process.kill()
    assert "state        cancelled" in convrun("status", folder)[1]


def test_a_run_that_has_not_begun_has_nothing_to_save_when_it_is_cancelled(
    here, run_folder, launch_json, convrun, program
):
    program("squeue", "echo '7|PENDING|Priority||N/A|tiny-1'")
    program("scancel", "exit 0")
    folder = run_folder(launch__json=launch_json())
    (folder / "logs").mkdir()
    assert convrun("cancel", folder)[:2] == (0, f"cancelled; it was waiting: convrun status {folder}\n")


def test_where_slurm_does_not_answer_that_is_said_and_nothing_is_taken_for_granted(
    here, run_folder, launch_json, convrun, program
):
    program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    folder = run_folder(launch__json=launch_json(), status__json={**DONE, "state": "preempted"})
    (folder / "logs").mkdir()
    out = convrun("status", folder)[1].splitlines()
    assert "state        preempted" in out
    assert "note         slurm_load_jobs error: Unable to contact slurm controller" in out
    (folder / "status.json").unlink()
    assert "unknown: slurm_load_jobs error: Unable to contact" in convrun("status", folder)[1]
    code, _, error = convrun("cancel", folder)
    assert (code, error.startswith("error: job 7 cannot be cancelled: slurm_load_jobs error: Unable")) == (1, True)


def test_times_are_told_in_this_machines_zone(here, run_folder, launch_json, convrun, program, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    program("squeue", "echo '7|PENDING|Priority||2026-01-02T03:04:05|tiny-1'")  # Slurm's are of this zone
    out = convrun("status", run_folder(launch__json=launch_json(time="2026-01-01T00:00:00+00:00")))[1].splitlines()
    monkeypatch.undo()
    time.tzset()
    assert "launched     slurm job 7, PENDING, 2026-01-01 09:00:00" in out
    assert "starts       expected 2026-01-02 03:04:05" in out


def test_following_tells_what_a_run_waits_for_and_outlasts_a_slurm_that_does_not_answer(
    run_folder, launch_json, program, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr("convrun.launching.watching.ASK_SECONDS", 0.0)
    folder = run_folder(launch__json=launch_json())
    answers = [
        "echo '7|PENDING|Resources||N/A|tiny-1'",
        "echo '7|PENDING|Resources||N/A|tiny-1'",
        "echo 'no controller' >&2; exit 1",
        "echo '7|PENDING|Priority||N/A|tiny-1'",
        "echo '7|CANCELLED|None||N/A|tiny-1'",
    ]
    cases = "".join(f"{i}) {answer};;\n" for i, answer in enumerate(answers))
    program("squeue", f"n=$(cat {tmp_path}/n || echo 0); echo $((n + 1)) >{tmp_path}/n\ncase $n in\n{cases}esac")
    assert follow_run(folder, folder / "nothing", io.StringIO(), is_alive=True).state == "cancelled"
    assert capsys.readouterr().err.splitlines() == [
        "convrun: waiting: Resources (the nodes it needs are busy)",
        "convrun: no controller",
        "convrun: waiting: Priority (other jobs come first)",
    ]


def test_slurms_refusal_to_cancel_is_told_and_the_run_stays_as_it_was(here, run_folder, launch_json, convrun, program):
    program("squeue", "echo '7|RUNNING|None|n1|N/A|tiny-1'")
    program("scancel", "echo 'scancel: error: Kill job error on job id 7: Access/permission denied' >&2; exit 1")
    folder = run_folder(launch__json=launch_json())
    (folder / "logs").mkdir()
    code, _, error = convrun("cancel", folder)
    assert (code, "Access/permission denied" in error) == (1, True)
    assert not (folder / "logs" / "cancelled").exists()


def test_waiting_ends_with_the_runs_own_exit_code(work, convrun, program, tmp_path, monkeypatch, wait_until):
    monkeypatch.setattr("convrun.launching.watching.ASK_SECONDS", 0.1)
    program("sbatch", "echo Submitted batch job 7")
    name = f'sed -n \'s/.*job_name": "\\(.*\\)".*/\\1/p\' {tmp_path}/run/launch.json'
    word = f"[ -e {tmp_path}/ended ] && word='FAILED|x' || word='RUNNING|None'"
    program("squeue", f'{word}; echo "7|$word|n1|N/A|$({name})"; echo >>{tmp_path}/asked')

    def end():
        wait_until(lambda: (tmp_path / "asked").exists())
        (tmp_path / "run" / "status.json").write_text(
            '{"state": "diverged", "step": 3, "total_steps": 9, "error": "nan"}'
        )
        (tmp_path / "run" / "logs" / "launch.log").write_text("error: nan\n")
        (tmp_path / "ended").touch()

    end_later = threading.Thread(target=end)
    end_later.start()
    code, out, _ = convrun("launch", "--slurm", "check_folder=false", "-o", "run", "--wait")
    end_later.join()
    assert (code, out.splitlines()[-1]) == (3, "error: nan")


def test_ctrl_c_while_following_leaves_the_run_alone(here, run_folder, tmp_path):
    folder = run_folder(status__json={**DONE, "state": "running"}, **{"train.log": "line\n"})
    holder = (
        "import sys, signal; from pathlib import Path; from convrun.run_folder.lock import RunLock; "
        "RunLock(Path(sys.argv[1])).acquire(); print('ready', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", holder, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"  # or it would be over
    command = [sys.executable, "-m", "convrun", "logs", str(folder), "-f"]
    follower = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert follower.stdout.readline() == "line\n"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=30) == 130
        assert process.poll() is None
    finally:
        process.kill()
        follower.kill()
