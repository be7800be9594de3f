"""Which checkpoints are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from convrun.checkpoints.files import path_of, point, steps_in
from convrun.run_folder import explained


def keep_only(folder: Path, last: int, best: Sequence[int], interval: int | None = None) -> None:
    """Deletes all checkpoints except those to keep, and points `best` at the best one.

    Args:
        folder: the folder of the checkpoints.
        last: how many of the newest are kept, at least 1.
        best: the steps of the best evaluations, best first; their checkpoints are kept.
        interval: checkpoints at its multiples are never deleted.

    Raises:
        RunFolderError: one cannot be deleted.
    """
    with explained(f"the checkpoints in {folder}", "look at the rights on that folder"):
        _delete(folder, last, best, interval)
        _point_best(folder, best)


def _delete(folder: Path, last: int, best: Sequence[int], interval: int | None) -> None:
    steps = steps_in(folder)
    for step in steps[: max(0, len(steps) - last)]:
        path = path_of(folder, step)
        is_for_good = interval is not None and step % interval == 0
        if step not in best and not is_for_good and path.is_file():
            path.unlink()


def _point_best(folder: Path, best: Sequence[int]) -> None:
    if best and path_of(folder, best[0]).is_file():
        point(folder, "best", path_of(folder, best[0]))
    elif (folder / "best").is_symlink() and not (folder / "best").exists():
        (folder / "best").unlink()
