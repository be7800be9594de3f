"""Runs on a real Slurm of four nodes on this machine. Skipped, with the reason, where it is not installed."""

import json
import os
import signal
from pathlib import Path

import pytest

from convrun.launching.launch import prepare
from convrun.launching.run_status import run_status
from convrun.launching.sending import send

pytest.importorskip("submitit")
LONG = ("training.epochs=12", "checkpoints.every_steps=40", "evaluation.every_steps=48")
# Gives a signal the time to come in the middle, and the machine's two cores to somebody else.
PAUSE = """
import time
from convrun.registry import register


@register("augmentation", "pause", place="image")
class Pause:
    \"\"\"Nothing, for some milliseconds.

    seconds: how many
    \"\"\"

    def __init__(self, shape, *, seconds: float = 0.01):
        self.seconds = seconds

    def __call__(self, image, _generator):
        time.sleep(self.seconds)
        return image
"""
SLOW = (
    "augmentations=[pause, {name: random_crop, padding: 1}, horizontal_flip, {name: random_erasing, probability: 0.5}, "
    "{name: mixup_cutmix, mixup_alpha: 0.8, cutmix_alpha: 1.0}]",
    *LONG,
)


@pytest.fixture
def launch(work, slurm, fresh_registry):
    """Launches the tiny recipe on the cluster; gives (run folder, job id)."""

    (work / "plugins").mkdir()
    (work / "plugins" / "pause.py").write_text(PAUSE)

    def start(*words, folder="run", **keys):
        launching = prepare(
            "recipe.yaml", [*words, "check_folder=false"], launcher="slurm", output=work / folder, **keys
        )
        sent = send(launching)
        return launching.runs[0].job.folder, sent[0].info["job_id"]

    return start


@pytest.fixture
def ended(until):
    """Waits until a run is over; gives its state."""

    def wait(folder):
        seen = []

        def has_ended():
            seen.append(run_status(folder))
            return is_over(seen[-1])

        until(has_ended, lambda: explain(folder))
        return seen[-1]

    return wait


def is_over(run):
    """Whether Slurm says so; a busy one may give no answer, and only the folder speaks then."""
    return run.exit_code is not None and run.job.state != "unknown"


def explain(folder):
    log = folder / "logs" / "launch.log"
    return f"{run_status(folder)}\n{log.read_text() if log.exists() else 'no log'}"


def steps(folder):
    """Steps done, as far as the metrics tell."""
    try:
        return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    except (OSError, IndexError, ValueError):
        return 0


def has_done(folder, step):
    """Whether a run is beyond a step; fails at once if it is over before."""
    assert not is_over(run_status(folder)), explain(folder)
    return steps(folder) > step


def log_of(folder):
    return (folder / "logs" / "launch.log").read_text()


def same(one, other, tolerance=0.0):
    """Whether two runs logged the same numbers."""
    assert len(one) == len(other) > 5
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        assert all(
            a[k] == pytest.approx(b[k], rel=tolerance, abs=tolerance) if isinstance(a[k], float) else a[k] == b[k]
            for k in a
        ), (a, b)
    return True


@pytest.fixture(scope="module")
def undisturbed(train_in, tmp_path_factory):
    """The long run, in this process, that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train_in(folder, *LONG)
    return folder


def test_a_run_signalled_in_the_middle_is_requeued_once_and_equals_one_that_was_not(
    launch, ended, until, slurm, undisturbed, rows
):
    """With loader workers: the signal reaches them, too, and they must not requeue the job a second time."""
    folder, job = launch(*SLOW, "data.workers=2")
    until(lambda: has_done(folder, 20), lambda: explain(folder))
    slurm("scancel", "--signal=USR2", job)
    state = ended(folder)
    assert (state.state, state.exit_code) == ("finished", 0), explain(folder)
    assert slurm("squeue", "-h", "-t", "all", "-j", job, "-o", "%T") == "COMPLETED"
    assert (
        log_of(folder).count("convrun: saved; restart 1 of at most 20") == log_of(folder).count("convrun: saved") == 1
    )
    assert len(json.loads((folder / "environment.json").read_text())["starts"]) == 2
    assert same(rows(folder), rows(undisturbed))


def test_a_node_that_fails_gives_its_run_to_another_one(launch, ended, until, slurm, undisturbed, rows):
    folder, job = launch(*SLOW)
    until(lambda: has_done(folder, 41), lambda: explain(folder))  # beyond a checkpoint: nothing is saved at the end
    node = slurm("squeue", "-h", "-j", job, "-o", "%N")
    try:
        slurm("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")  # or it would be back in a second
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        until(lambda: run_status(folder).state == "waiting", lambda: explain(folder))
        state = ended(folder)
    finally:
        slurm("scontrol", "update", f"nodename={node}", "state=resume")
    assert state.state == "finished", explain(folder)
    assert state.where != node
    assert same(rows(folder), rows(undisturbed))


def test_a_cancelled_run_saves_and_is_not_requeued(launch, ended, until, slurm, convrun):
    folder, job = launch(*SLOW)
    until(lambda: has_done(folder, 5), lambda: explain(folder))
    assert convrun("cancel", folder)[0] == 0
    state = ended(folder)
    assert (state.state, state.exit_code) == ("cancelled", 130)
    until(lambda: json.loads((folder / "status.json").read_text())["state"] == "preempted", lambda: explain(folder))
    assert slurm("squeue", "-h", "-t", "all", "-j", job, "-o", "%T") == "CANCELLED"
    assert convrun("cancel", folder)[0] == 2  # there is nothing left to cancel


def test_without_requeues_left_the_job_ends_as_failed_with_the_runs_own_exit_code(launch, ended, until, slurm):
    folder, job = launch(*SLOW, "max_requeues=0", "nodes=2", "training.micro_batch=2")
    until(lambda: has_done(folder, 5), lambda: explain(folder))
    slurm("scancel", "--signal=USR2", job)
    state = ended(folder)
    assert (state.state, state.exit_code) == ("preempted", 75), explain(folder)
    assert "ExitCode=75:0" in slurm("scontrol", "show", "job", job)


def test_a_run_that_fails_is_failed_for_slurm_and_in_its_folder(launch, ended, slurm):
    folder, job = launch("data.name=digits", "input_size=8", "optimizer.lr=1e30", "model.num_classes=10")
    state = ended(folder)
    assert (state.state, state.exit_code) == ("diverged", 3), explain(folder)
    assert "ExitCode=3:0" in slurm("scontrol", "show", "job", job)


def test_a_sweep_is_one_array_with_a_run_folder_each(launch, ended, slurm, convrun, work):
    first, job = launch(folder="sweep", sweep=["seed=0,1"])
    second = work / "sweep" / "1-seed=1"
    assert [ended(folder).state for folder in (first, second)] == ["finished", "finished"], explain(second)
    assert job.endswith("_0")
    assert len(set(slurm("squeue", "-h", "-r", "-t", "all", "-j", job.partition("_")[0], "-o", "%F").split())) == 1
    found = json.loads(convrun("list", "runs", work / "sweep", "--format", "json")[1])
    assert [(run["sweep"], run["sweep_values"]) for run in found] == [
        ("sweep", {"seed": "0"}),
        ("sweep", {"seed": "1"}),
    ]
    assert "seed: 1" in (second / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("nodes=8", "Node count specification invalid"),
        ("partition=nowhere", "invalid partition specified: nowhere"),
        ("mem=9999999", "Memory specification can not be satisfied"),
    ],
)
def test_what_slurm_refuses_is_said_in_its_own_words_and_leaves_nothing_behind(work, slurm, convrun, word, reason):
    words = ["training.batch_size=16", "training.micro_batch=2", word, "check_folder=false"]
    code, _, error = convrun("launch", "--slurm", *words, "-o", "deep/run")
    assert code == 1
    assert error.startswith("error: Slurm refused the job: sbatch: error: ")
    assert reason in error
    assert not (work / "deep").exists()


def test_four_nodes_train_what_one_process_does(launch, ended, train_in, rows, tmp_path):
    """The same images, draws and learning rates; sums in another order, which large steps would magnify."""
    words = ("training.epochs=3", "training.micro_batch=2", "optimizer.lr=5e-3")
    train_in(tmp_path / "alone", *words)
    folder, _ = launch(*words, "nodes=4")
    state = ended(folder)
    assert state.state == "finished", explain(folder)
    assert state.where == "node[1-4]"
    assert "\x1b" not in log_of(folder)  # a log is no terminal: no live display, no colours
    plan = json.loads((folder / "plan.json").read_text())
    assert (plan["processes"], plan["accumulation"]) == (4, 1)
    assert same(rows(folder), rows(tmp_path / "alone"), 1e-5)


def test_a_rank_that_is_killed_ends_the_run_as_failed(launch, ended, until, slurm):
    """By SIGKILL, as when memory runs out: it can say nothing itself."""
    folder, job = launch(*SLOW, "training.micro_batch=2", "nodes=2")
    until(lambda: has_done(folder, 5), lambda: explain(folder))
    (rank_1,) = [pid for pid in Path("/proc").iterdir() if is_rank(pid, job, "1")]
    os.kill(int(rank_1.name), signal.SIGKILL)
    state = ended(folder)
    assert state.state == "failed", explain(folder)
    assert json.loads((folder / "status.json").read_text())["state"] == "failed"
    assert state.why
    assert "JobState=FAILED" in slurm("scontrol", "show", "job", job)


def is_rank(process, job, rank):
    """Whether a folder of /proc is a task of this rank in the job."""
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
        command = (process / "cmdline").read_bytes()
    except OSError:
        return False
    wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={rank}".encode()}
    return wanted <= set(variables) and b"convrun.task" in command


SLOW_TESTS = pytest.mark.skipif(
    "CONVRUN_SLOW_TESTS" not in os.environ, reason="takes a minute: CONVRUN_SLOW_TESTS=1 runs it"
)


@SLOW_TESTS
def test_a_time_limit_in_the_middle_saves_requeues_and_changes_nothing(launch, ended, undisturbed, rows):
    """Slurm looks at limits every 30 s, and takes no limit below a minute: the signal comes up to 30 s early."""
    pause = SLOW[0].replace("[pause,", "[{name: pause, seconds: 0.05},")
    folder, _ = launch(pause, *LONG, "time=1", "signal_seconds=20")
    state = ended(folder)
    assert state.state == "finished", explain(folder)
    assert log_of(folder).count("convrun: saved; restart") >= 1
    assert same(rows(folder), rows(undisturbed))


@SLOW_TESTS
def test_a_run_that_is_preempted_gives_way_and_goes_on_after(launch, ended, until, slurm, undisturbed, rows):
    """The cluster's partition `low` gives its nodes to jobs of `main`, after 20 s of grace."""
    folder, _ = launch(*SLOW, "partition=low", "exclusive=true")
    until(lambda: has_done(folder, 5), lambda: explain(folder))
    slurm("sbatch", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
    state = ended(folder)
    assert state.state == "finished", explain(folder)
    assert len(json.loads((folder / "environment.json").read_text())["starts"]) == 2
    assert same(rows(folder), rows(undisturbed))
