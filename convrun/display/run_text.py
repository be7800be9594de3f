"""Runs as a person reads them: one in full, many as a table."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from convrun.display.screen import clock
from convrun.launching.log_files import LOG
from convrun.launching.run_state import ALIVE, RunState

MOST_SHOWN = 300


def run_text(run: RunState) -> str:
    """One run: labelled lines, and what can be done next."""
    rows = [
        ("run", f"{run.folder} ({run.name})"),
        ("state", f"{run.state}: {_line(run.why)}" if run.why else run.state),
        ("step", _step(run)),
        *(("left", f"about {clock(run.seconds_left)}") for _ in [0] if run.seconds_left is not None),
        *(("best top-1", f"{run.top1:.2f} %") for _ in [0] if run.top1 is not None),
        *(("launched", _launched(run)) for _ in [0] if run.launch),
        *(("where", run.where) for _ in [0] if run.where),
        *(("starts", f"expected {run.job.start}") for _ in [0] if run.job.start),
        *(("sweep", f"{run.launch.sweep}: {_values(run)}") for _ in [0] if run.launch and run.launch.sweep),
        ("next", _next(run)),
    ]
    return "\n".join(f"{label:<12} {text}" for label, text in rows)


def run_rows(runs: Sequence[RunState]) -> list[dict[str, str]]:
    """A table's rows, runs of a sweep together."""
    rows = []
    for run in sorted(runs, key=lambda run: (str(run.folder.parent), str(run.folder))):
        rows.append(
            {
                "run": str(run.folder),
                "sweep": _values(run) if run.launch and run.launch.sweep else "",
                "state": run.state,
                "step": f"{run.step}/{run.total_steps}" if run.total_steps else "-",
                "left": clock(run.seconds_left) if run.seconds_left is not None else "",
                "top-1": f"{run.top1:.2f}" if run.top1 is not None else "-",
                "job": _job(run.launch.info) if run.launch else "",
                "why": _line(run.why),
            }
        )
    return rows


def _line(text: str) -> str:
    """A message on one line; the log has all of it."""
    words = " ".join(text.split())
    return words if len(words) <= MOST_SHOWN else f"{words[: MOST_SHOWN - 1]}…"


def _step(run: RunState) -> str:
    return f"{run.step} of {run.total_steps}" if run.total_steps else "not begun"


def _values(run: RunState) -> str:
    return ", ".join(f"{key}={value}" for key, value in run.launch.values.items()) if run.launch else ""


def _launched(run: RunState) -> str:
    assert run.launch
    job = _job(run.launch.info)
    state = f", {run.job.word}" if run.job.word else ""
    return f"{run.launch.launcher.get('name')}{f' job {job}' if job else ''}{state}, {run.launch.time}"


def _job(info: Mapping[str, object]) -> str:
    return str(info.get("job_id", ""))


def _next(run: RunState) -> str:
    folder = shlex.quote(str(run.folder))
    if run.state in ALIVE:
        return f"convrun logs {folder} --follow"
    if run.state == "finished":
        return f"convrun show {folder} --origin"
    if run.state in ("failed", "unknown", "diverged"):
        return f"convrun logs {folder}"
    return f"convrun {'launch' if run.launch and (run.folder / LOG).exists() else 'run'} {folder} (goes on)"
