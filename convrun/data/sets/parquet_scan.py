"""What parquet files of encoded images hold: which files each split has, their labels and the classes' names."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from convrun.data.sets.classes import numbered_notes
from convrun.data.sets.parquet_columns import (
    Labels,
    check_range,
    image_leaf,
    label_column,
    named_classes,
    pa,
    pq,
    read_labels,
)
from convrun.data.sets.parquet_paths import Patterns, files_of_splits
from convrun.errors import DataError
from convrun.text.lookalikes import apart, composed, look_alikes, pairs_text

__all__ = ["Shard", "Split", "first_line", "only_column", "pa", "pq", "readable", "scan_splits"]


@dataclass(frozen=True)
class Shard:
    """One file.

    Attributes:
        path: the file.
        version: its size in bytes and the time of its last change, in nanoseconds.
        column: the column in the file that holds the images' bytes, `image.bytes`.
        image_bytes: the size of that column.
        nulls: how many images the file's statistics count as missing.
        label_column: the column that holds the labels.
        labels: one a row.
        names: the classes, if the file's metadata name them.
        words: what the labels are, if they are text; `labels` are positions in it.
    """

    path: str
    version: tuple[int, int]
    column: str
    image_bytes: int
    nulls: int
    label_column: str
    labels: Labels = field(repr=False, compare=False)
    names: tuple[str, ...] | None = field(repr=False)
    words: tuple[str, ...] | None = field(repr=False)


@dataclass(frozen=True)
class Split:
    """One split: its files one after the other, the classes' names, and what a user must know of it."""

    shards: tuple[Shard, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(shard.labels) for shard in self.shards)


def scan_splits(
    root: str,
    train: Patterns,
    val: Patterns | None,
    image_column: str,
    label_column: str,
    num_classes: int | None = None,
) -> dict[str, Split]:
    """The files of each split, labelled; without a pattern val is empty.

    Only labels and metadata are read, once for each file.

    Raises:
        DataError: files are missing or broken, or labels or class names are wrong.
    """
    found = {
        split: tuple(_shard(path, image_column, label_column) for path in paths)
        for split, paths in files_of_splits(root, {"train": train, "val": val}).items()
    }
    for split, of_split in found.items():
        _check_images(split, of_split)
    _check_columns([*found["train"], *found["val"]])
    names = _common_names([*found["train"], *found["val"]])
    if any(shard.words is not None for shard in found["train"] if len(shard.labels)):
        names, found = _numbered(found, names)
    shards = [*found["train"], *found["val"]]
    _check_labels(shards, names)
    highest = max(int(shard.labels.max(initial=0)) for shard in shards)
    is_meant = names is not None or (num_classes or 0) > highest
    names = names or tuple(str(label) for label in range(max(highest + 1, num_classes or 0)))
    in_train, in_val = (_present(found[split]) for split in ("train", "val"))
    cure = "move some of them to the files of train, leave them out of val's, or set data.val to other files"
    images = sum(len(shard.labels) for shard in found["train"])
    notes = numbered_notes(root, names, images, in_train, in_val, numbers_are_meant=is_meant, cure=cure)
    return {split: Split(found[split], names, notes[split]) for split in ("train", "val")}


def _check_images(split: str, shards: Sequence[Shard]) -> None:
    """A split has rows, and images in them; some may be missing (`data.bad_images`)."""
    rows = sum(len(shard.labels) for shard in shards)
    if shards and not rows:
        raise DataError(f"the {split} split is empty: no row in {shards[0].path}; set data.{split}=PATTERN")
    if rows and sum(shard.nulls for shard in shards) == rows:
        raise DataError(
            f"no image of the {split} split has bytes ({shards[0].path}, column {shards[0].column}), and a path alone "
            "is not followed; save the files with the images in them, set data.image_column=NAME, or read the image "
            "files themselves with data.name=image_folder"
        )


def _check_columns(shards: Sequence[Shard]) -> None:
    """All files have their labels in the same column, as text or as numbers."""
    first, *others = [shard for shard in shards if len(shard.labels)]
    for shard in others:
        if shard.label_column != first.label_column:
            what = f"has its labels in the column {first.label_column}, {shard.path} in {shard.label_column}"
        elif (shard.words is None) != (first.words is None):
            kinds = ["numbers" if one.words is None else "text" for one in (first, shard)]
            what = f"has labels that are {kinds[0]}, {shard.path} {kinds[1]}"
        else:
            continue
        raise DataError(f"{first.path} {what}, so they are not of one data set; set data.train and data.val, or "
                        "data.label_column, to what fits")  # fmt: skip


def _numbered(
    found: Mapping[str, tuple[Shard, ...]], names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[str, tuple[Shard, ...]]]:
    """Numbers for labels that are text: positions among the words of train, sorted as class folders are.

    Words that only val has come behind them.
    """
    in_train, in_val = ({composed(w) for shard in found[s] for w in shard.words or ()} for s in ("train", "val"))
    order = list(names or sorted(in_train))
    order += sorted((in_train | in_val).difference(order))
    numbers = {word: number for number, word in enumerate(order)}

    def numbered(shard: Shard) -> Shard:
        table = np.array([numbers[composed(word)] for word in shard.words or ()], np.int32)
        return replace(shard, labels=table[shard.labels] if len(table) else shard.labels)

    return tuple(order), {split: tuple(map(numbered, shards)) for split, shards in found.items()}


def _present(shards: Sequence[Shard]) -> list[int]:
    """The labels that some image has."""
    return sorted({int(label) for shard in shards for label in np.unique(shard.labels)})


def _shard(path: str, image_column: str, label_column: str) -> Shard:
    with readable(path):
        status = Path(path).stat()
    return _read_shard(path, (status.st_size, status.st_mtime_ns), image_column, label_column)


# The plan wants the counts, then each split is opened: size and time in the arguments keep the cache honest.
@functools.lru_cache(maxsize=4096)
def _read_shard(path: str, version: tuple[int, int], written_image_column: str, written_label_column: str) -> Shard:
    with readable(path):
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        column = image_leaf(path, schema, written_image_column)
        label = label_column(path, schema, written_label_column)
        labels, words = read_labels(path, label, file.read(columns=[label], use_threads=False).column(0))
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        columns = [group.column(number) for group in groups for number in range(group.num_columns)]
        parts = [part for part in columns if part.path_in_schema == column]
        size = sum(part.total_uncompressed_size for part in parts)
        statistics = [part.statistics for part in parts]
        nulls = sum(found.null_count or 0 for found in statistics if found is not None and found.has_null_count)
        return Shard(path, version, column, size, nulls, label, labels, named_classes(schema, label), words)


def _check_labels(shards: Sequence[Shard], names: tuple[str, ...] | None) -> None:
    for shard in shards if names else ():
        counts_from_1 = len(shard.labels) > 0 and shard.labels.min() == 1 and shard.labels.max() == len(names or ())
        why = "do the labels count from 1? " if counts_from_1 else ""
        cure = f"{why}the files name no more classes; fetch the file again, or set data.label_column=NAME"
        check_range(shard.path, shard.label_column, shard.labels, len(names or ()), cure)


def _common_names(shards: Sequence[Shard]) -> tuple[str, ...] | None:
    named = [shard for shard in shards if shard.names]
    for shard in named[1:]:
        if shard.names != named[0].names:
            raise DataError(
                f"{named[0].path} and {shard.path} name other classes ({_difference(named[0], shard)}), so they are "
                "not of one data set; set data.train and data.val to files that are"
            )
    return named[0].names if named else None


def _difference(one: Shard, other: Shard) -> str:
    names, others = one.names or (), other.names or ()
    if len(names) != len(others):
        pairs = look_alikes(set(names) - set(others), others)
        return f"{len(names)} and {len(others)}" + (f"; {pairs_text(pairs, 'in one', 'in the other')}" if pairs else "")
    label = next(number for number, (a, b) in enumerate(zip(names, others, strict=True)) if a != b)
    here, there = apart(names[label], others[label])
    return f"label {label} is {here} in one, {there} in the other"


@contextlib.contextmanager
def readable(path: str) -> Iterator[None]:
    """An error of pyarrow's or of the disk's while a parquet file is read becomes a DataError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {_reason(path, error)}; fetch it again") from None


def _reason(path: str, error: Exception) -> str:
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        if file.read(19) == b"version https://git":
            return "it is git's pointer to the file (git lfs pull fetches it)"
    return first_line(error)


def first_line(error: Exception) -> str:
    """The first line of what an error of pyarrow's or of the disk's says, without its full stop."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return reason.partition("\n")[0].rstrip(".") or type(error).__name__


def only_column(table: Any) -> Any:
    """The only column of a table; that of a struct's only field if it is one."""
    column = table.column(0)
    return column.flatten()[0] if pa.types.is_struct(column.type) else column
