"""Which classes the splits of a data set may have: one rule for every kind of data set.

The classes are those of the train split. A val split may lack some of them, which is told; one that only val has can
never be right, since no image teaches it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from convrun.errors import DataError
from convrun.text.wording import listed, printable

MOST_SHOWN = 5


def val_notes(where: str, train: Sequence[str], val: Collection[str], cure: str) -> tuple[str, ...]:
    """What a user must know of the classes of val.

    Args:
        where: the data set, for the message.
        train: names of the classes that have training images, in order.
        val: names of those that have validation images.
        cure: what the user can do about classes that only val has.

    Raises:
        DataError: val has images of a class that train has none of.
    """
    taught, tested = set(train), set(val)
    if alone := [name for name in dict.fromkeys(val) if name not in taught]:
        what = f"images of {class_text(alone)} are in val alone, so no training image shows {_it(alone)}"
        raise DataError(f"{where}: {what}; {cure}")
    absent = [name for name in train if name not in tested]
    if not tested or not absent:
        return ()
    return (f"val has no image of {class_text(absent)}, which train has: no evaluation says how well {_it(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} recognised",)  # fmt: skip


def class_text(names: Sequence[str]) -> str:
    """`class a`, or `3 classes (a, b, c)`; a name with spaces around it is quoted."""
    shown = [printable(name) if name and name == name.strip() else repr(name) for name in names]
    return f"class {shown[0]}" if len(shown) == 1 else f"{len(shown):,} classes ({listed(shown, MOST_SHOWN)})"


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
