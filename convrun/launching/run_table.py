"""Many runs as a table: those of a recipe together, those of a sweep together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from convrun.launching.run_status import RunStatus
from convrun.launching.run_text import job_id, on_one_line
from convrun.text.tables import table
from convrun.text.units import clock


def runs_text(runs: Sequence[RunStatus], most_width: int) -> str:
    """A table with one header line; a line with the folder's name precedes the runs of each folder.

    The important columns come first, since lines are cut to the width.
    """
    ordered = sorted(runs, key=lambda run: (str(run.folder.parent), run.folder.name))
    head, *lines = table([_row(run) for run in ordered], most_width).split("\n")
    text = [head]
    for parent, members in itertools.groupby(zip(ordered, lines, strict=True), lambda pair: pair[0].folder.parent):
        text += [f"{on_one_line(str(parent))}/", *(line for _, line in members)]
    return "\n".join(text)


def _row(run: RunStatus) -> dict[str, str]:
    return {
        "state": run.state,
        "step": f"{run.step}/{run.total_steps}" if run.total_steps else "-",
        "left": clock(run.seconds_left) if run.seconds_left is not None else "",
        "top-1": f"{run.top1:.2f}" if run.top1 is not None else "-",
        "run": on_one_line(run.folder.name),
        "job": job_id(run.launch) if run.launch else "",
        "why": on_one_line(run.why),
    }
