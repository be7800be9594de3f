"""Which classes the splits of a data set may have: one rule for every kind of data set.

The classes are those of the train split, two at least: of one, a model is always right, and its loss is 0. A val split
may lack some of them, which is told; one that only val has can never be right, since no image teaches it.

Where only numbers name the classes, each number up to the highest must have a training image: a number without any is
most often a mistake in the numbering (they count from 1). `num_classes` in the recipe says that it is meant; then, as
where the data name their classes, a note lists those without a training image.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from convrun.errors import DataError
from convrun.text.lookalikes import look_alikes, pairs_text
from convrun.text.wording import listed, printable

MOST_SHOWN = 5
TRAIN = frozenset({"train", "training"})
VAL = frozenset({"val", "valid", "validation", "dev", "eval"})
TEST = frozenset({"test", "testing"})
SPLITS = TRAIN | VAL | TEST
FEW_IMAGES = 20  # so few may well have a class each, in a try


def numbered_notes(
    where: str,
    names: Sequence[str],
    images: int,
    train: Sequence[int],
    val: Sequence[int],
    *,
    numbers_are_meant: bool,
    cure: str,
) -> dict[str, tuple[str, ...]]:
    """What a user must know of the classes of both splits, where labels are numbers.

    Args:
        where: the data set, for the message.
        names: one a label.
        images: how many there are in train.
        train: labels that training images have, sorted.
        val: labels that validation images have, sorted.
        numbers_are_meant: the data name the classes, or the recipe says how many there are.
        cure: what the user can do about classes that only val has.

    Raises:
        DataError: the labels cannot be right.
    """
    if len(train) == 1:
        raise one_class(where, names[train[0]], "look at the labels, or add images of another class")
    if not numbers_are_meant and val and val[0] == 1 and val[-1] == train[-1] + 1:
        cure = f"do the labels of val count from 1, and those of train from 0? Else {cure}"
    in_train, in_val = ([names[label] for label in labels] for labels in (train, val))
    of_val = val_notes(where, in_train, in_val, cure)
    gaps = sorted(set(range(len(names))) - set(train))
    if gaps and not numbers_are_meant:
        raise _not_numbered_from_0(where, gaps, train[-1])
    of_train = []
    if gaps:
        why = "; do the labels count from 1?" if gaps[0] == 0 and train[0] == 1 else ""
        of_train.append(f"train has no image of {class_text([names[label] for label in gaps])}{why}")
    if len(train) == images > FEW_IMAGES:
        of_train.append(f"each of the {images:,} training images has a class of its own: are these really labels?")
    return {"train": tuple(of_train), "val": of_val}


def one_class(where: str, name: str, cure: str) -> DataError:
    """For data from which nothing can be learnt."""
    return DataError(f"{where}: all training images are of {class_text([name])}, so there is nothing to learn; {cure}")


def check_is_no_split(where: str, names: Collection[str], train_folder: str) -> None:
    """Raises DataError if all class folders have names of splits: the folder is one level too high."""
    if len(names) < 2 or not SPLITS.issuperset(name.lower() for name in names):
        return
    below = "" if train_folder == "." else f"{train_folder}/"
    train, val = (next((name for name in sorted(names) if name.lower() in of_split), None) for of_split in (TRAIN, VAL))
    val_text = f"{below}{val}" if val else "null evaluation=null"
    cure = f"data.train_folder={below}{train or 'NAME'} data.val_folder={val_text}"
    raise DataError(f"{where}: its folders, taken for classes, are named {', '.join(names)}, as splits are; set {cure}")


def _not_numbered_from_0(where: str, gaps: Sequence[int], highest: int) -> DataError:
    if gaps == [0]:
        what = f"training images have the labels 1 to {highest}, none has 0. Do the labels count from 1?"
        cure = "Subtract 1 from those of all splits"
    else:
        shown = listed([str(label) for label in gaps], MOST_SHOWN)
        what = f"no training image has the label{'s' if len(gaps) > 1 else ''} {shown}, though they go up to {highest}"
        what, cure = f"{what}.", "Number the classes 0, 1, 2 and so on in all splits"
    meant = f"if such a class is meant to be there, without images, set data.num_classes={highest + 1}"
    return DataError(f"{where}: {what} {cure}; {meant}")


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
        if pairs := look_alikes(alone, train):
            cure = f"{pairs_text(pairs, 'in val', 'in train')}: where they are one class, rename it in val. Else {cure}"
        raise DataError(f"{where}: {what}; {cure}")
    absent = [name for name in train if name not in tested]
    if not tested or not absent:
        return ()
    alike = pairs_text(look_alikes(absent, val), "in train", "in val")
    return (f"val has no image of {class_text(absent)}, which train has: no evaluation says how well {_it(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} recognised{alike and f' ({alike})'}",)  # fmt: skip


def class_text(names: Sequence[str]) -> str:
    """`class a`, or `3 classes (a, b, c)`; a name with spaces around it is quoted."""
    shown = [printable(name) if name and name == name.strip() else repr(name) for name in names]
    return f"class {shown[0]}" if len(shown) == 1 else f"{len(shown):,} classes ({listed(shown, MOST_SHOWN)})"


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
