"""The classes that a head was trained on, beside those of the data: the same, in another order, or others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

from convrun.errors import ModelError
from convrun.text.lookalikes import composed, look_alikes, pairs_text
from convrun.text.wording import listed, printable

_NEW = "init.head=reinit makes a new head"


def are_comparable(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether names tell anything of each other: numbers that stand for names ("0", "class 1") do not."""
    return sorted(theirs) == sorted(ours) or not (_are_numbers(theirs) or _are_numbers(ours))


def rows_of_head(file: str, theirs: Sequence[str], ours: Sequence[str]) -> list[int] | None:
    """Which row of a file's head each class of the data has; None if the rows are right as they are.

    Args:
        file: what messages call it.
        theirs: the names of the file's classes, in label order.
        ours: those of the data.

    Raises:
        ModelError: the classes are others, or are in another order and two have one name.
    """
    # A folder's name may have come from a Mac, in Unicode's other form.
    theirs, ours = ([composed(name) for name in names] for names in (theirs, ours))
    if theirs == ours:
        return None
    if sorted(theirs) != sorted(ours):
        raise ModelError(f"{file} was trained on other classes than the data's: {_difference(theirs, ours)}; {_NEW}")
    if twice := [name for name, count in Counter(ours).items() if count > 1]:
        message = f"{file} has the data's classes in another order, and of {_names(twice)} there are two"
        raise ModelError(f"{message}, so nobody knows which is which; {_NEW}")
    row_of = {name: row for row, name in enumerate(theirs)}
    return [row_of[name] for name in ours]


def with_rows(file: str, head: Mapping[str, Tensor], rows: Sequence[int], num_classes: int) -> dict[str, Tensor]:
    """A head's tensors with these rows first, the others behind them.

    Raises:
        ModelError: the head has a tensor without one row a class, so it cannot be put into another order.
    """
    if other := [name for name, tensor in head.items() if tensor.shape[:1] != (num_classes,)]:
        message = f"{file} has the data's classes in another order, and {other[0]} of its head has no row a class"
        raise ModelError(f"{message}; {_NEW}")
    taken = set(rows)
    order = [*rows, *(row for row in range(num_classes) if row not in taken)]
    return {name: tensor[order] for name, tensor in head.items()}


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether the names only count: 0, 1, 2, ..."""
    return all(re.fullmatch(rf"(class )?{label}", name) for label, name in enumerate(names))


def _difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    in_file, in_data = set(theirs), set(ours)
    missing, extra = [n for n in theirs if n not in in_data], [n for n in ours if n not in in_file]
    parts = [("only in the file", missing), ("only in the data", extra)]
    named = "; ".join(f"{where}: {_names(names)}" for where, names in parts if names)
    if pairs := look_alikes(missing, extra):
        named += f"; {pairs_text(pairs, 'in the file', 'in the data')}: rename the data's if they are one class"
    return named or f"{len(theirs):,} in the file, {len(ours):,} in the data"


def _names(names: Sequence[str]) -> str:
    return printable(listed(names, 5))
