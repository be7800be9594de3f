"""What `convrun launch` prints: the plan and the script of a dry run, or what was submitted and how to watch it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from convrun.display.plan_text import plan_text
from convrun.launching.launch import Launching
from convrun.launching.record import Launch


def dry_run_text(launching: Launching) -> str:
    """The plan of each run (of a sweep: the first in full), then exactly what would be submitted."""
    first = launching.runs[0]
    lines = [plan_text(first.recipe, first.plan), *_processes(launching)]
    if len(launching.runs) > 1:
        lines += [f"{'sweep':<12} {len(launching.runs)} runs, the first one's plan above", *_folders(launching)]
    else:
        lines.append(f"{'run folder':<12} {launching.submission.home}")
    lines += [f"{'note':<12} {note}" for note in launching.notes]
    return "\n".join([*lines, "", launching.script.rstrip()])


def sent_text(launching: Launching, sent: Sequence[Launch]) -> str:
    """The job, the run folder, and the commands to watch it."""
    home, count = launching.submission.home, len(sent)
    where = shlex.quote(str(_short(launching)))
    lines = [f"{'sent':<12} {launching.launcher.watch_text([launch.info for launch in sent])}"]
    lines += [f"{'note':<12} {note}" for note in launching.notes]
    if count == 1:
        lines += [
            f"{'run folder':<12} {home}",
            f"{'watch':<12} convrun status {where}",
            f"{'':<12} convrun logs {where} --follow",
            f"{'end':<12} convrun cancel {where}",
        ]
    else:
        lines += [*_folders(launching), f"{'watch':<12} convrun list runs {where}"]
    return "\n".join(lines)


def _processes(launching: Launching) -> list[str]:
    if launching.launcher.processes is None:
        return [f"{'note':<12} planned for one process: the number of processes is known only where the run starts"]
    return []


def _folders(launching: Launching) -> list[str]:
    lines = [f"{'run folders':<12} {launching.submission.home}/"]
    return lines + [f"{'':<12}   {run.job.folder.name}" for run in launching.runs]


def _short(launching: Launching) -> str:
    """The folder relative to the working folder, if it is below it."""
    home, here = launching.submission.home, launching.submission.jobs[0].working_folder
    return str(home.relative_to(here)) if home.is_relative_to(here) else str(home)
