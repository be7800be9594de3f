"""Runs as Slurm jobs: checked, submitted, queried, cancelled."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from convrun.contracts.launcher import JobState, Launcher, LaunchError, Submission
from convrun.launching.shared_folder import doubt, why_local
from convrun.launching.slurm.keys import SlurmKeys


class Slurm(Launcher):
    """The launcher behind launcher/slurm. How jobs are saved and requeued: `convrun.launching.slurm.script`."""

    def __init__(self, keys: SlurmKeys) -> None:
        self.keys = keys
        self.processes = keys.nodes * keys.tasks

    def notes(self, submission: Submission) -> list[str]:
        """Raises LaunchError if the nodes cannot see the run folder; returns a note if they probably cannot."""
        if not self.keys.check_folder:
            return []
        if reason := why_local(submission.home):
            raise LaunchError(
                f"the nodes cannot see the run folder {submission.home}: {reason}; choose one on a shared disk with "
                "--output, or set check_folder=false if they can see it"
            )
        return [text for text in [doubt(submission.home)] if text]

    def script(self, submission: Submission) -> str:
        """The batch script."""
        from convrun.launching.slurm.script import script_text

        return script_text(self.keys, submission)

    def submit(self, submission: Submission) -> list[dict[str, Any]]:
        """Submits one job, or one array."""
        from convrun.launching.slurm.submission import send

        missing = [program for program in ("sbatch", "squeue", "scancel") if shutil.which(program) is None]
        if missing:
            raise LaunchError(
                f"{missing[0]} is not on the PATH: launch from a login node of a Slurm cluster, or see what would be "
                "submitted with --dry-run"
            )
        job_id = send(self.keys, submission)
        is_array = len(submission.jobs) > 1
        ids = [f"{job_id}_{i}" if is_array else job_id for i in range(len(submission.jobs))]
        return [{"job_id": each, "job_name": submission.name} for each in ids]

    def query(self, infos: Sequence[Mapping[str, Any]]) -> list[JobState]:
        """Asks Slurm once for all."""
        from convrun.launching.slurm.queue import job_states

        return job_states([(str(info.get("job_id", "")), str(info.get("job_name", ""))) for info in infos])

    def cancel(self, info: Mapping[str, Any]) -> None:
        """Slurm signals the processes, which save, and kills them after its KillWait (30 s by default)."""
        (state,) = self.query([info])
        if state.state == "ended":
            return
        job_id = str(info.get("job_id", ""))
        if state.state == "unknown":
            why = state.reason or "Slurm has no job of that id and name; is this its cluster?"
            raise LaunchError(f"job {job_id} cannot be cancelled: {why}")
        try:
            done = subprocess.run(["scancel", job_id], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LaunchError(f"scancel {job_id} failed: {error}") from None
        if done.returncode:
            raise LaunchError(f"Slurm refuses to cancel job {job_id}: {done.stderr.strip()}")

    def watch_text(self, infos: Sequence[Mapping[str, Any]]) -> str:
        """The job's id."""
        first = str(infos[0]["job_id"])
        if len(infos) == 1:
            return f"Slurm job {first}"
        return f"Slurm job array {first.partition('_')[0]}, {len(infos)} runs"
