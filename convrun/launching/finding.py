"""Run folders on the disk: one that the user names, or all below `runs/`."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

from convrun.errors import UsageError
from convrun.files.leftovers import is_leftover
from convrun.text.wording import nearest

RUNS = Path("runs")
# runs/NAME/RUN, and runs/NAME/SWEEP/RUN
DEEPEST = 3
_MARKS = ("status.json", "launch.json", "plan.json")


def run_named(text: str) -> Path:
    """The run folder a user means: its path, or the name of one below `runs/`.

    Raises:
        UsageError: no run, or several runs, have this name.
    """
    path = Path(text)
    if is_run(path):
        return path
    below = runs_in(path)
    if len(below) == 1:
        return below[0]
    if below:
        raise UsageError(
            f"{text} holds {len(below)} runs ({below[0].name}, ...); name one, or convrun list runs {text}"
        )
    found = {str(run.relative_to(RUNS)): run for run in runs_in(RUNS)}
    same = [run for name, run in found.items() if text in (name, run.name)]
    if len(same) == 1:
        return same[0]
    if same:
        raise UsageError(f"several runs are named {text}: {', '.join(map(str, same))}; name one by its path")
    shown = text if len(text) <= 200 else f"{text[:200]}…"
    guess = nearest(shown.rstrip("/"), [str(run) for run in found.values()])
    hint = f"did you mean {guess}?" if guess else "convrun list runs shows those below runs/"
    raise UsageError(f"{shown} is not a run folder; {hint}")


def runs_matching(pattern: str) -> list[Path]:
    """The runs below a folder, or those below `runs/` whose path a shell pattern matches or holds."""
    if os.path.isdir(pattern):  # noqa: PTH112 - takes any text
        return [Path(pattern)] if is_run(Path(pattern)) else runs_in(Path(pattern))
    wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    return [run for run in runs_in(RUNS) if fnmatch.fnmatch(str(run.relative_to(RUNS)), wanted)]


def runs_in(folder: Path) -> list[Path]:
    """All run folders below a folder, sorted; folders that cannot be read are skipped."""
    return sorted(_below(folder, DEEPEST))


def _below(folder: Path, depth: int) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            folders = [entry for entry in entries if entry.is_dir() and not is_leftover(entry.name, is_folder=True)]
            children = [Path(entry.path) for entry in folders]
    except OSError:
        return []
    found = [child for child in children if is_run(child)]
    if depth > 1:
        found += [run for child in children if child not in found for run in _below(child, depth - 1)]
    return found


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    try:
        return (folder / "recipe.yaml").is_file() and any((folder / mark).is_file() for mark in _MARKS)
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False
