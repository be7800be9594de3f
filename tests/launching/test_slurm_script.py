"""The batch script: its text, and what its lines do, run by bash with programs that stand in for Slurm's."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from convrun.contracts.launcher import Job, Submission
from convrun.launching.launch import prepare
from convrun.launching.slurm.script import STALE, script_text

pytest.importorskip("submitit")


def options(text):
    """The #SBATCH lines as {option: value}."""
    lines = [shlex.split(line)[1] for line in text.splitlines() if line.startswith("#SBATCH ")]
    return {name.removeprefix("--"): value for name, _, value in (line.partition("=") for line in lines)}


def test_only_what_the_user_set_is_asked_of_slurm(keys, submission, tmp_path):
    assert options(script_text(keys(), submission())) == {
        "chdir": str(tmp_path),
        "job-name": "tiny-1",
        "nodes": "1",
        "ntasks-per-node": "1",
        "open-mode": "append",
        "output": f"{tmp_path}/home/logs/launch.log",
        "requeue": "",
        "signal": "USR2@120",
    }


def test_the_sites_arguments_go_through_untouched(keys, submission):
    words = [
        "nodes=4", "gpus_per_node=8", "cpus_per_task=12", "mem=0", "time=1-12:00:00", "partition=a", "account=b",
        "qos=c", "constraint='[v100|a100]'", "reservation=d", "nodelist='n[1-4]'", "exclude=n7", "gres=shard:1",
        "exclusive=true", "dependency=afterok:1", "comment=two words", "mail_type=END", "mail_user=a@b.c",
        "signal_seconds=300", 'sbatch=["--licenses=x:1", "#SBATCH --contiguous"]',
    ]  # fmt: skip
    found = options(script_text(keys(*(f"launcher.{word}" for word in words)), submission()))
    expected = {
        "nodes": "4", "gpus-per-node": "8", "ntasks-per-node": "8", "cpus-per-task": "12", "mem": "0",
        "time": "1-12:00:00", "partition": "a", "account": "b", "qos": "c", "constraint": "[v100|a100]",
        "reservation": "d", "nodelist": "n[1-4]", "exclude": "n7", "gres": "shard:1", "exclusive": "",
        "dependency": "afterok:1", "comment": "two words", "mail-type": "END", "mail-user": "a@b.c",
        "signal": "USR2@300", "licenses": "x:1", "contiguous": "",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_srun_gets_its_arguments_and_the_cores_that_it_does_not_take_from_sbatch(keys, submission):
    text = script_text(keys("launcher.cpus_per_task=5", 'launcher.srun_args=["--mpi=none", "--x=a b"]'), submission())
    line = next(line for line in text.splitlines() if line.startswith("srun "))
    assert shlex.split(line)[:7] == [
        "srun", "--export=ALL", "--kill-on-bad-exit=1", "--wait=0", "--cpus-per-task=5", "--mpi=none",
        "--x=a b",
    ]  # fmt: skip
    assert shlex.split(line)[7:] == [sys.executable, "-P", "-u", "-m", "convrun.task", "$run", "$nonce"]


def test_a_container_sees_the_run_folder_and_the_working_folder(keys, submission, tmp_path):
    words = ["launcher.image=nvcr.io#nvidia/pytorch:25.01-py3", 'launcher.mounts=["/data:/data:ro"]']
    lines = [line for line in script_text(keys(*words), submission()).splitlines() if "srun " in line]
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line.removeprefix("noted=$(").removesuffix(")"))
        assert "--container-image=nvcr.io#nvidia/pytorch:25.01-py3" in words
        mounts = f"{tmp_path}/home:{tmp_path}/home,{tmp_path}:{tmp_path},/data:/data:ro"
        assert f"--container-mounts={mounts}" in words
        assert f"--container-workdir={tmp_path}" in words
        assert "python" in words  # the image's own


def test_without_requeues_slurm_is_told_so_too(keys, submission):
    found = options(script_text(keys("launcher.max_requeues=0"), submission()))
    assert "no-requeue" in found
    assert "requeue" not in found


def test_a_folder_with_a_percent_sign_is_no_pattern_for_slurm(keys, tmp_path):
    home = tmp_path / "100%j"
    text = script_text(keys(), Submission("n", home, (Job("n", home, tmp_path, "x"),)))
    assert options(text)["output"] == f"{tmp_path}/100%%j/logs/launch.log"
    assert f"run={shlex.quote(str(home))} " in text


def test_setup_lines_come_before_the_processes(keys, submission):
    lines = script_text(keys('launcher.setup=["module load cuda", "export A=1"]'), submission()).splitlines()
    assert lines.index("module load cuda") + 1 == lines.index("export A=1")
    assert lines.index("export A=1") < next(i for i, line in enumerate(lines) if line.startswith("srun "))


def test_bash_reads_it(keys, submission):
    for text in (script_text(keys(), submission()), script_text(keys("launcher.image=x"), submission("a", "b"))):
        assert subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True).stderr == ""


# What the lines do.


@pytest.fixture
def played(keys, submission, program, tmp_path):
    """Runs the script by bash; srun's tasks are a shell script. Gives (exit code, output, calls of scontrol)."""

    def play(task, *words, restarts=None, index=None, folders="0", greeting=None, **environment):
        calls = tmp_path / "calls"
        program("srun", 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"')
        program("scontrol", f'echo "$@" >>{calls}')
        noted = 'echo "$6"' if greeting is None else f"printf '%s' '{greeting}'"
        python = program("python-there", f'if [ "$3" = convrun.launching.ended ]; then {noted}; exit; fi\n{task}')
        sent = submission(*folders)
        for job in sent.jobs:
            (job.folder / "logs").mkdir(parents=True, exist_ok=True)
        text = script_text(keys(f"launcher.python={python}", *words), sent)
        environment = {**os.environ, "SLURM_JOB_ID": "77", **environment}
        if restarts is not None:
            environment["SLURM_RESTART_COUNT"] = str(restarts)
        if index is not None:
            environment["SLURM_ARRAY_TASK_ID"] = str(index)
        done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, env=environment)
        return done.returncode, done.stdout + done.stderr, calls.read_text().split("\n")[:-1] if calls.exists() else []

    return play


LEAVE = 'echo "{code} n" >"$5/logs/exits/rank-0"; exit {code}'


def leaving(code):
    """A task that ends as rank 0 does."""
    return LEAVE.format(code=code)


@pytest.mark.parametrize("time", ["5", "10", "1-0"])
def test_a_run_that_was_saved_is_requeued_whatever_its_time_limit_is(played, time):
    assert played(leaving(75), f"launcher.time={time}") == (
        75,
        "convrun: saved; restart 1 of at most 20\n",
        ["requeue 77"],
    )


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130])
def test_a_run_that_ended_otherwise_is_not_and_its_exit_code_is_the_jobs(played, code):
    assert played(leaving(code)) == (code, "", [])


@pytest.mark.parametrize(("restarts", "is_requeued"), [(None, True), (4, True), (5, False)])
def test_it_is_requeued_max_requeues_times(played, restarts, is_requeued):
    code, _, calls = played(leaving(75), "launcher.max_requeues=5", restarts=restarts)
    assert code == 75
    assert bool(calls) == is_requeued


def test_a_job_that_slurm_restarted_too_often_by_itself_does_not_train(played):
    code, output, calls = played("echo trained", "launcher.max_requeues=5", restarts=6)
    assert (code, calls) == (75, [])
    assert output == "convrun: restarted 6 times, and max_requeues is 5: left as it is\n"


def test_what_an_image_prints_first_is_no_exit_code(played):
    """And nothing at all leaves the code as it was."""
    assert played(leaving(3), greeting="Welcome\n17")[0] == 17
    assert played(leaving(3), greeting="Welcome")[0] == 3
    assert played(leaving(3), greeting="")[0] == 3


def test_rank_0_speaks_for_the_run(played):
    """Another rank was killed because rank 0 had ended: srun's exit code is the largest of all."""
    task = 'echo "75 n" >"$5/logs/exits/rank-0"; exit 137'
    assert played(task)[2] == ["requeue 77"]


def test_a_rank_0_that_left_no_word_leaves_sruns_exit_code(played):
    assert played("kill -9 $$")[0] == 137


def test_the_word_of_an_earlier_start_does_not_count(played, tmp_path):
    exits = tmp_path / "home" / "logs" / "exits"
    exits.mkdir(parents=True)
    (exits / "rank-0").write_text("75 n\n")
    assert played("exit 4") == (4, "", [])


def test_what_setup_sets_does_not_end_the_script_before_its_time(played):
    assert played(leaving(75), 'launcher.setup=["set -euo pipefail"]')[2] == ["requeue 77"]


def test_how_much_of_the_log_is_of_earlier_starts_is_noted(played, tmp_path):
    (tmp_path / "home" / "logs").mkdir(parents=True)
    (tmp_path / "home" / "logs" / "launch.log").write_text("12345678\n")
    assert played('cat "$5/logs/exits/started"')[1] == "9\n"


def test_a_cancelled_run_is_not_requeued_though_it_saved(played):
    assert played(f'touch "$5/logs/cancelled"; {leaving(75)}')[::2] == (75, [])


def test_a_signal_to_the_whole_job_does_not_end_the_script(played):
    """`scancel --full --signal=USR2` reaches the shell, too."""
    assert played(f"kill -USR2 $PPID; {leaving(75)}")[2] == ["requeue 77"]


def test_variables_of_the_place_it_was_sent_from_do_not_reach_the_processes(played):
    stale = dict.fromkeys(STALE, "7")
    code, output, _ = played("env; exit 0", **stale, KEPT="1")
    names = {line.partition("=")[0] for line in output.splitlines()}
    assert code == 0
    assert "KEPT" in names
    assert names & set(STALE) == set()


def test_each_element_of_an_array_has_its_own_run_folder_and_log(played, tmp_path):
    code, output, calls = played(f'echo "in $5 as $6"; {leaving(75)}', folders="abc", index=1)
    assert (code, output, calls) == (75, "", ["requeue 77"])
    home = tmp_path / "home"
    assert (home / "b" / "logs" / "launch.log").read_text().startswith(f"in {home}/b as nonceb\n")


def test_nothing_of_submitits_own_defaults_is_asked_for(work, convrun):
    """Five minutes, its signal, its wckey, a name."""
    launching = prepare("recipe.yaml", ["check_folder=false"], launcher="slurm")
    found = options(launching.script)
    assert {"time", "wckey"} & set(found) == set()
    assert found["signal"] == "USR2@120"
    assert Path(found["output"]).name == "launch.log"
