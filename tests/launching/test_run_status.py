"""What is said of a run, from its folder, its process and its launcher."""

import json
import os
import random
import subprocess
import sys

import pytest

from convrun.launching.run_status import run_status
from convrun.run_folder.lock import RunLock
from convrun.run_folder.process_identity import this_process

ROWS = "".join(
    json.dumps(row) + "\n"
    for row in (
        {"kind": "train", "step": 40, "loss": 1.0, "images_per_second": 16.0},
        {"kind": "eval", "step": 40, "weights": "model", "top1": 50.0},
        {"kind": "eval", "step": 40, "weights": "ema", "top1": 80.0},
        {"kind": "eval", "step": 50, "weights": "model", "top1": 45.0},
    )
)


def status(state, step=30, **more):
    return {"state": state, "step": step, "total_steps": 100, "host": "h", "pid": 1, "time": "t", **more}


@pytest.mark.parametrize(
    ("said", "code"), [("finished", 0), ("failed", 1), ("diverged", 3), ("preempted", 75), ("interrupted", 130)]
)
def test_a_run_that_has_ended_is_what_it_says(run_folder, said, code):
    run = run_status(run_folder(status__json=status(said, error="why"), metrics__jsonl=ROWS))
    assert (run.state, run.exit_code, run.step, run.total_steps, run.top1) == (said, code, 50, 100, 50.0)
    assert run.why == ("" if said == "finished" else "why")


def test_a_run_whose_process_holds_the_folder_is_running_and_its_time_left_is_known(run_folder):
    folder = run_folder(status__json=status("running"), metrics__jsonl=ROWS)
    lock = RunLock(folder, here=this_process())
    lock.acquire()
    try:
        run = run_status(folder)
        assert (run.state, run.exit_code) == ("running", None)
        assert run.seconds_left == (100 - 50) * 8 / 16
    finally:
        lock.release()
    run = run_status(folder)
    assert (run.state, run.exit_code, run.seconds_left) == ("killed", 1, None)


def test_a_run_that_was_killed_is_told_from_one_that_runs(run_folder, tmp_path):
    folder = run_folder(status__json=status("running"))
    code = (
        "import os, sys; from pathlib import Path; from convrun.run_folder.lock import RunLock; "
        "RunLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    run = run_status(folder)
    assert run.state == "killed"
    assert "is gone" in run.why


def test_a_run_on_another_machine_is_running_as_long_as_its_sign_of_life_moves(run_folder):
    import dataclasses

    folder = run_folder(status__json=status("running"))
    lock = RunLock(folder, here=dataclasses.replace(this_process(), host="elsewhere"))
    lock.acquire()
    claim = next(folder.glob(".lock.*"))
    held = claim.read_bytes()
    lock.release()
    claim.write_bytes(held)
    assert run_status(folder).state == "running"
    os.utime(claim, (1, 1))
    assert (run_status(folder).state, "on elsewhere" in run_status(folder).why) == ("killed", True)


@pytest.mark.parametrize(
    ("squeue", "said", "state", "why"),
    [
        ("PENDING|Priority||N/A", None, "waiting", "Priority (other jobs come first)"),
        ("PENDING|BeginTime||N/A", "preempted", "waiting", "BeginTime (Slurm starts a requeued job after a pause)"),
        ("RUNNING|None|n1|N/A", None, "starting", ""),
        ("RUNNING|None|n1|N/A", "preempted", "starting", ""),
        ("COMPLETING|None|n1|N/A", "preempted", "running", "its processes are ending"),
        ("COMPLETING|None|n1|N/A", "finished", "running", "its last step is done; its processes are ending"),
        ("COMPLETED|None|n1|N/A", "finished", "finished", ""),
        ("FAILED|NonZeroExitCode|n1|N/A", "failed", "failed", "why"),
        ("FAILED|NonZeroExitCode|n1|N/A", None, "failed", "the job ended (FAILED, NonZeroExitCode)"),
        ("OUT_OF_MEMORY|OutOfMemory|n1|N/A", "running", "killed", "the job ended (OUT_OF_MEMORY, OutOfMemory)"),
        ("TIMEOUT|TimeLimit|n1|N/A", "running", "killed", "the job ended (TIMEOUT, TimeLimit)"),
        ("FAILED|NonZeroExitCode|n1|N/A", "preempted", "preempted",
         "it was not requeued (FAILED, NonZeroExitCode)"),
        ("CANCELLED|None|n1|N/A", "preempted", "cancelled", ""),
        ("NODE_FAIL|None|n1|N/A", "running", "killed", "the job ended (NODE_FAIL)"),
    ],
)  # fmt: skip
def test_what_slurm_says_corrects_what_the_folder_says(run_folder, launch_json, program, squeue, said, state, why):
    program("squeue", f"echo '7|{squeue}|tiny-1'")
    folder = run_folder(launch__json=launch_json(), status__json=status(said, error="why") if said else None)
    run = run_status(folder)
    assert (run.state, run.why) == (state, why)


def test_a_run_that_has_saved_ends_and_one_that_saved_in_an_earlier_start_is_starting(run_folder, launch_json, program):
    program("squeue", "echo '7|RUNNING|None|n1|N/A|tiny-1'")
    folder = run_folder(launch__json=launch_json(), status__json=status("preempted"))
    (folder / "logs" / "exits").mkdir(parents=True)
    started = folder / "logs" / "exits" / "started"
    started.touch()
    os.utime(started, (1, 1))
    assert (run_status(folder).state, run_status(folder).why) == ("running", "its processes are ending")
    os.utime(folder / "status.json", (0, 0))
    assert (run_status(folder).state, run_status(folder).why) == ("starting", "")


@pytest.mark.parametrize(("said", "state"), [("finished", "finished"), ("failed", "failed"), (None, "unknown")])
def test_where_slurm_does_not_know_the_job_any_more_the_folder_is_believed(
    run_folder, launch_json, program, said, state
):
    folder = run_folder(launch__json=launch_json(), status__json=status(said) if said else None)
    assert run_status(folder).state == state


@pytest.mark.parametrize("said", ["preempted", None])
def test_a_cancelled_run_is_cancelled_when_slurm_has_forgotten_it_too(run_folder, launch_json, program, said):
    program("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    folder = run_folder(launch__json=launch_json(), status__json=status(said) if said else None)
    (folder / "logs").mkdir()
    (folder / "logs" / "cancelled").touch()
    assert (run_status(folder).state, run_status(folder).job.reason) == ("cancelled", "")


def test_a_launcher_that_is_not_here_leaves_the_folder_to_speak(run_folder, launch_json):
    launch = launch_json(launcher={"name": "moon_base", "x": 1})
    assert run_status(run_folder(launch__json=launch, status__json=status("failed"))).state == "failed"
    run = run_status(run_folder("runs/tiny/two", launch__json=launch))
    assert run.state == "unknown"
    assert "moon_base" in run.why


GARBAGE = ["", "{", "[1, 2]", "null", "3", '{"state": 7}', '{"state": "running", "step": "x"}', "\x00\xff", "[" * 9999,
           '{"nonce": 1}', '{"info": []}', '{"step": 1e999}']  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_no_garbage_in_a_folder_is_an_error(run_folder, program, seed):
    draw = random.Random(seed)
    files = {f"{name}__json": draw.choice(GARBAGE) for name in ("status", "launch", "plan")}
    folder = run_folder(**files, metrics__jsonl="".join(draw.choice(GARBAGE) + "\n" for _ in range(5)))
    (folder / ".lock.7").write_text(draw.choice(GARBAGE))
    run = run_status(folder)
    json.dumps(run.as_dict())
    assert run.step >= 0


def test_a_folder_in_the_place_of_a_file_is_no_error(run_folder):
    folder = run_folder(plan__json=None)
    for name in ("status.json", "launch.json", "plan.json", "metrics.jsonl"):
        (folder / name).mkdir()
    assert run_status(folder).state == "unknown"
