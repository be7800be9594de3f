"""The state that all processes of a run go on from: rank 0 finds it, the others read the same file."""

from __future__ import annotations

from collections.abc import Callable

from convrun import checkpoints
from convrun.distributed.group import Group
from convrun.training.resuming.changes import drop_what_changed
from convrun.training.resuming.finding import SavedState


def found_for_all(group: Group, find: Callable[[], SavedState]) -> SavedState:
    """What rank 0 finds, checks and may have to put aside, in every process.

    The run folder is on a disk that all nodes see, so the others read the file: sending it round would hold another
    copy of weights, averages and moments in every process's memory.
    """
    if group.size == 1:
        return find()
    found = find() if group.is_first else None
    told = group.from_first(lambda: (found.path, found.changes, found.content is None) if found else None)
    if found is not None:
        return found
    assert told is not None
    path, changes, is_new = told
    content = None if is_new else checkpoints.load(path)
    if content is not None and changes:
        drop_what_changed(content, [key for key, _, _ in changes])
    return SavedState(content, path, changes)
