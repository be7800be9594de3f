"""Submits the batch script: the environment of sbatch, and what its answer, or no answer, means."""

from __future__ import annotations

import os
import re
import subprocess

from convrun.contracts.launcher import LaunchError, Submission
from convrun.launching.slurm.keys import SlurmKeys
from convrun.launching.slurm.queue import job_named
from convrun.launching.slurm.script import executor, script_text
from convrun.run_folder import explained

SCRIPT = "logs/submission.sh"  # what was submitted last
# sbatch's variables that are not named as its options are.
_VARIABLES = {"time": "TIMELIMIT", "mem": "MEM_PER_NODE"}
# These would make sbatch wait for the job to end, submit an array, or write a second log.
_NEVER = {"SBATCH_WAIT", "SBATCH_ARRAY_INX", "SBATCH_ERROR"}
_OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")
_OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CLUSTERS")


def send(keys: SlurmKeys, submission: Submission) -> str:
    """Submits the script; returns the job id.

    Raises:
        LaunchError: with Slurm's own reason.
        RunFolderError: the script cannot be written.
    """
    from submitit.core.utils import FailedSubmissionError

    submitit, script = executor(keys, submission), submission.home / SCRIPT
    text = script_text(keys, submission)
    with explained(str(script), "choose another run folder with --output"):
        script.write_text(text, encoding="utf-8")
    command = submitit._make_submission_command(script)
    done = subprocess.run(command, env=_environment(text), capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        try:
            return str(submitit._get_job_id_from_submission_command(done.stdout))
        except FailedSubmissionError:
            pass  # a site's own sbatch may word its answer differently
    return _found(submission.name, (done.stderr + done.stdout).strip() or "sbatch printed nothing")


def _found(name: str, reason: str) -> str:
    """The id of a job that sbatch did not report: Slurm may have accepted it, and been too busy to answer.

    Raises:
        LaunchError: Slurm refused the job, or does not answer.
    """
    job_id = job_named(name)
    if job_id:
        return job_id
    if job_id is None:
        raise LaunchError(
            f"Slurm does not answer: {reason}\nTry again when it does. If it has accepted this job ({name}) after all, "
            "the job fails when it starts, and changes nothing"
        )
    raise LaunchError(f"Slurm refused the job: {reason}")


def _environment(script: str) -> dict[str, str]:
    """The user's environment, without what would override the script's lines, or belongs to a surrounding job."""
    options = set(re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE))
    if options & {"requeue", "no-requeue"}:
        options |= {"requeue", "no-requeue"}
    unwanted = {f"SBATCH_{_VARIABLES.get(option, option.upper().replace('-', '_'))}" for option in options} | _NEVER
    if "SLURM_JOB_ID" in os.environ:
        unwanted |= {name for name in os.environ if name.startswith(_OF_A_JOB) and name not in _OF_THE_CLUSTER}
    return {name: value for name, value in os.environ.items() if name not in unwanted}
