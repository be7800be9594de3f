"""Whether all processes are about to train the same: another recipe or other files on one node make no sense."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from convrun.distributed.group import Group
from convrun.distributed.meeting.rendezvous import ranks_text
from convrun.errors import DataError
from convrun.text.lookalikes import composed

if TYPE_CHECKING:
    from convrun.contracts.data import ImageSet

CURES = {
    "recipe": "start all with the same recipe, overrides and plugins",
    "data": "their class names, or how many images there are, differ: look at the data on those nodes",
}


def check_agreement(group: Group, mine: Mapping[str, str]) -> None:
    """Compares what each process has with what rank 0 has; collective.

    Raises:
        DataError: something differs, or the same thing is not there; names it, and the ranks.
    """
    everyones = group.from_all((dict(mine), group.world.host))
    first = everyones[0][0]
    for what, cure in CURES.items():
        others = [rank for rank, (theirs, _) in enumerate(everyones) if theirs[what] != first[what]]
        if others:
            hosts = ", ".join(sorted({everyones[rank][1] for rank in others}))
            raise DataError(f"{ranks_text(others)} ({hosts}) and rank 0 do not have the same {what}; {cure}")


def data_hash(train_set: ImageSet, val_set: ImageSet) -> str:
    """Tells data apart by class map and counts, as a checkpoint does."""
    facts = [*map(composed, train_set.class_names), len(train_set), len(val_set)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
