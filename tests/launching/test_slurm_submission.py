"""What sbatch is handed, and what its answer means; a script stands in for it."""

import os

import pytest

from convrun.contracts.launcher import Job, LaunchError, Submission
from convrun.launching.slurm.script import script_text
from convrun.launching.slurm.submission import send

pytest.importorskip("submitit")


@pytest.fixture
def sent(submission):
    """A submission whose folder is there."""

    def make(*folders):
        made = submission(*folders)
        (made.home / "logs").mkdir(parents=True, exist_ok=True)
        return made

    return make


@pytest.mark.parametrize("folders", ["0", "abc"], ids=["run", "sweep"])
def test_what_is_sent_is_what_the_dry_run_shows_and_stays_in_the_folder(keys, sent, program, tmp_path, folders):
    program("sbatch", f"cp $1 {tmp_path}/sent; echo Submitted batch job 4711")
    made = sent(*folders)
    assert send(keys(), made) == "4711"
    assert (tmp_path / "sent").read_text() == script_text(keys(), made)
    (script,) = (made.home / "logs").iterdir()
    assert (script.name, script.read_text()) == ("submission.sh", script_text(keys(), made))


def test_a_folder_named_like_a_pattern_of_submitits_holds_the_script_all_the_same(keys, program, tmp_path):
    program("sbatch", "echo Submitted batch job 4711")
    home = tmp_path / "a %j %t"
    (home / "logs").mkdir(parents=True)
    before = set(tmp_path.iterdir())
    send(keys(), Submission("n", home, (Job("n", home, tmp_path, "x"),)))
    assert (home / "logs" / "submission.sh").is_file()
    assert set(tmp_path.iterdir()) == before


def test_slurms_own_reason_is_told(keys, sent, program):
    program("sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid qos specification' >&2; exit 1")
    program("squeue", "exit 0")
    with pytest.raises(LaunchError, match=r"Slurm refused the job: .*Invalid qos specification"):
        send(keys(), sent())


@pytest.mark.parametrize(
    "answer", ["echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1", "echo all is well"]
)
def test_a_job_that_slurm_took_without_saying_so_is_found_by_its_name(keys, sent, program, tmp_path, answer):
    program("sbatch", answer)
    program("squeue", f'echo "$@" >{tmp_path}/asked; echo "12|tiny-1"; echo "9|tiny-1"; echo "99|tiny-11"')
    assert send(keys(), sent()) == "12"
    assert "--name=tiny-1 " in (tmp_path / "asked").read_text()


def test_where_slurm_does_not_answer_at_all_nothing_is_claimed(keys, sent, program):
    program("sbatch", "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1")
    program("squeue", "echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1")
    with pytest.raises(LaunchError, match=r"(?s)Slurm does not answer: .*timed out.*changes nothing"):
        send(keys(), sent())


def test_what_the_script_says_wins_over_the_users_variables_for_sbatch(keys, sent, program, tmp_path, monkeypatch):
    """Of itself, sbatch would have it the other way round, in silence."""
    program("sbatch", f"env >{tmp_path}/env; echo Submitted batch job 1")
    names = ("PARTITION", "TIMELIMIT", "MEM_PER_NODE", "JOB_NAME", "OUTPUT", "SIGNAL", "NO_REQUEUE", "WAIT", "QOS")
    for name in names:
        monkeypatch.setenv(f"SBATCH_{name}", "mine")
    send(keys("launcher.partition=a", "launcher.time=60", "launcher.mem=1G"), sent())
    found = [line for line in (tmp_path / "env").read_text().split() if line.startswith("SBATCH_")]
    assert found == ["SBATCH_QOS=mine"]  # no key says anything of it


def test_a_job_that_sends_a_job_does_not_pass_its_own_size_on(keys, sent, program, tmp_path, monkeypatch):
    program("sbatch", f"env >{tmp_path}/env; echo Submitted batch job 1")
    monkeypatch.setenv("SLURM_CONF", "/etc/here.conf")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    monkeypatch.setenv("SLURM_NTASKS", "32")
    send(keys(), sent())
    assert {"SLURM_NTASKS=32", "SBATCH_ACCOUNT=mine"} <= set((tmp_path / "env").read_text().split())  # a user's wish
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    send(keys(), sent())
    found = (tmp_path / "env").read_text().split()
    assert "SLURM_CONF=/etc/here.conf" in found
    assert not [line for line in found if line.startswith(("SLURM_NTASKS", "SLURM_JOB_ID", "SBATCH_"))]
    assert os.environ["SLURM_NTASKS"] == "32"
