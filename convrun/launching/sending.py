"""Creates the run folders and submits the jobs; removes what it created if the jobs are not accepted."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from convrun.contracts.launcher import Job, LaunchError, Submission
from convrun.launching.ended import EXITS
from convrun.launching.launch import Launching, Prepared, has_begun
from convrun.launching.record import CANCELLED, NAME, Launch
from convrun.recipe.writing import recipe_yaml
from convrun.run_folder import RunFolder, explained, write_whole

_TRACES = (f"logs/{CANCELLED}", "logs/process.json")  # of an earlier launch, besides logs/exits


def send(launching: Launching) -> list[Launch]:
    """Creates the run folders and submits the jobs.

    Raises:
        LaunchError: the launcher's own reason.
        RunFolderError: a folder cannot be written.
    """
    submission = launching.submission
    with _undone_on_failure(submission):
        with explained(f"the run folder {submission.home}", "choose another with --output"):
            (submission.home / "logs").mkdir(parents=True, exist_ok=True)
            records = [_write(run, job, submission) for run, job in zip(launching.runs, submission.jobs, strict=True)]
        infos = launching.launcher.submit(submission)
    if len(infos) != len(records):
        raise LaunchError(
            f"the launcher was given {len(records)} runs and reported {len(infos)}: it breaks its contract"
        )
    sent = [dataclasses.replace(record, info=info) for record, info in zip(records, infos, strict=True)]
    for record, job in zip(sent, submission.jobs, strict=True):
        with explained(f"{job.folder}/{NAME}", "the job was submitted; free space, and ask the scheduler about it"):
            record.write(job.folder)
    return sent


@contextlib.contextmanager
def _undone_on_failure(submission: Submission) -> Iterator[None]:
    """On failure, removes the folders that were created, and restores the launch.json of those that existed.

    So a job that was accepted without an answer finds no folder, or another nonce, and ends at once.
    """
    home = submission.home
    made = [folder for folder in (home, *home.parents) if not folder.exists()]
    is_ours = bool(made) or not any(home.iterdir())
    words = [job.folder / name for job in submission.jobs for name in (NAME, *_TRACES)]
    before = {path: path.read_bytes() for path in words if path.is_file()}
    try:
        yield
    except BaseException:
        if is_ours:
            _remove(home, made)
        else:
            _restore(words, before)
        raise


def _remove(home: Path, made: Sequence[Path]) -> None:
    """Empties a folder; removes it and its parents if they were created here and are still empty."""
    shutil.rmtree(home, ignore_errors=True)
    with contextlib.suppress(OSError):
        if not made:
            home.mkdir()
        for folder in made[1:]:
            folder.rmdir()


def _restore(words: Sequence[Path], before: Mapping[Path, bytes]) -> None:
    for path in words:
        with contextlib.suppress(OSError):
            if path in before:
                write_whole(path, before[path])
            else:
                path.unlink()


def _write(run: Prepared, job: Job, submission: Submission) -> Launch:
    """Prepares the run folder: the recipe, the plan, launch.json; removes the traces of an earlier launch."""
    folder = RunFolder(job.folder)
    (job.folder / "logs").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(job.folder / EXITS, ignore_errors=True)
    for name in _TRACES:
        (job.folder / name).unlink(missing_ok=True)
    if not has_begun(job.folder):
        folder.write("recipe.yaml", recipe_yaml(run.recipe))
        folder.write_json("plan.json", run.plan.as_dict())
    record = Launch(
        nonce=job.nonce,
        name=job.name,
        launcher=run.recipe.launcher.as_written(),
        working_folder=str(job.working_folder),
        command=tuple(sys.argv),
        host=socket.gethostname(),
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        plugins=tuple(run.recipe.plugins),
        sweep=submission.home.name if len(submission.jobs) > 1 else "",
        values=dict(value.split("=", 1) for value in run.values),
    )
    record.write(job.folder)
    return record
