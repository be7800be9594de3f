"""One run as a person reads it."""

from __future__ import annotations

import datetime
import shlex

from convrun.contracts.launcher import JobState
from convrun.launching.record import Launch
from convrun.launching.run_status import ALIVE, RunStatus
from convrun.text.units import clock

MOST_SHOWN = 300


def run_text(run: RunStatus) -> str:
    """One run: labelled lines, and the next command."""
    rows = {
        "run": f"{run.folder} ({run.name})",
        "state": f"{run.state}: {on_one_line(run.why)}" if run.why else run.state,
        "step": f"{run.step} of {run.total_steps}" if run.total_steps else "not begun",
        "left": f"about {clock(run.seconds_left)}" if run.seconds_left is not None else "",
        "best top-1": f"{run.top1:.2f} %" if run.top1 is not None else "",
        "launched": _launched(run.launch, run.job) if run.launch else "",
        "where": run.where,
        "starts": f"expected {_time(run.job.start)}" if run.job.start else "",
        "sweep": _sweep(run.launch) if run.launch else "",
        "note": _unanswered(run),
        "next": _next(run),
    }
    return "\n".join(f"{label:<12} {text}" for label, text in rows.items() if text)


def on_one_line(text: str) -> str:
    """A text without line breaks, cut where it is too long; the log has all of it."""
    words = " ".join(text.split())
    return words if len(words) <= MOST_SHOWN else f"{words[: MOST_SHOWN - 1]}…"


def _unanswered(run: RunStatus) -> str:
    """Why the launcher could not be asked, unless the state already says so."""
    return on_one_line(run.job.reason) if run.job.state == "unknown" and run.job.reason != run.why else ""


def _sweep(launch: Launch) -> str:
    values = ", ".join(f"{key}={value}" for key, value in launch.values.items())
    return f"{launch.sweep}: {values}" if launch.sweep else ""


def _launched(launch: Launch, job: JobState) -> str:
    number = job_id(launch)
    words = [f"{launch.launcher.get('name')}{f' job {number}' if number else ''}", job.word, _time(launch.time)]
    return ", ".join(word for word in words if word)


def job_id(launch: Launch) -> str:
    """The job's number where its launcher has one."""
    return on_one_line(str(launch.info.get("job_id", "")))


def _time(text: str) -> str:
    """A time in this machine's zone; a text that is not a time stays as it is."""
    try:
        return datetime.datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return on_one_line(text)


def _next(run: RunStatus) -> str:
    folder = shlex.quote(str(run.folder))
    if run.state in ALIVE:
        return f"convrun logs {folder} --follow"
    if run.state == "finished":
        return f"convrun show {folder} --origin"
    if run.state in ("failed", "unknown", "diverged"):
        return f"convrun logs {folder}"
    return f"convrun {'launch' if run.launch else 'run'} {folder}"
