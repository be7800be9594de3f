"""What parquet files of encoded images hold: which files each split has, their labels and the classes' names.

The layout is that of image data sets on the Hugging Face hub: a column holds the image (bytes, or a struct with a field
`bytes`), another the label (an integer); the files' metadata may name the classes. This is where pyarrow is imported,
and who takes it from here gets the cure where it is missing.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convrun.data.sets.classes import numbered_notes
from convrun.errors import DataError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    raise DataError(f"parquet files need pyarrow ({missing}); pip install 'convrun[parquet]'") from None


__all__ = ["Shard", "Split", "first_line", "no_bytes", "only_column", "pa", "pq", "readable", "scan_splits"]
Patterns = str | tuple[str, ...]
MOST_CLASSES = 1_000_000  # a label beyond is an identifier or garbage, and its classes would not fit in memory


@dataclass(frozen=True)
class Shard:
    """One file.

    Attributes:
        path: the file.
        version: its size in bytes and the time of its last change, in nanoseconds.
        column: the column in the file that holds the images' bytes, `image.bytes`.
        image_bytes: the size of that column.
        labels: one a row.
        names: the classes, if the file names them.
    """

    path: str
    version: tuple[int, int]
    column: str
    image_bytes: int
    labels: npt.NDArray[np.int32] = field(repr=False, compare=False)
    names: tuple[str, ...] | None = field(repr=False)


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
    found: dict[str, tuple[Shard, ...]] = {"val": ()}
    for split, patterns in (("train", train), ("val", val)):
        if patterns is None:
            continue
        found[split] = tuple(_shard(path, image_column, label_column) for path in _files(root, split, patterns))
        if not sum(len(shard.labels) for shard in found[split]):
            raise DataError(f"the {split} split is empty: no row in {found[split][0].path}; set data.{split}=PATTERN")
    shards = [*found["train"], *found["val"]]
    names = _common_names(shards)
    _check_labels(shards, label_column, names)
    highest = max(int(shard.labels.max(initial=0)) for shard in shards)
    is_meant = names is not None or (num_classes or 0) > highest
    names = names or tuple(str(label) for label in range(max(highest + 1, num_classes or 0)))
    in_train, in_val = (_present(found[split]) for split in ("train", "val"))
    cure = "move some of them to the files of train, leave them out of val's, or set data.val to other files"
    images = sum(len(shard.labels) for shard in found["train"])
    notes = numbered_notes(root, names, images, in_train, in_val, numbers_are_meant=is_meant, cure=cure)
    return {split: Split(found[split], names, notes[split]) for split in ("train", "val")}


def _present(shards: Sequence[Shard]) -> list[int]:
    """The labels that some image has."""
    return sorted({int(label) for shard in shards for label in np.unique(shard.labels)})


def _files(root: str, split: str, patterns: Patterns) -> list[str]:
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DataError(f"the folder {base} does not exist; set data.root=FOLDER to the one with the parquet files")
    found: list[str] = []
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        matches = sorted(glob.glob(pattern, root_dir=base, recursive=True))
        if not matches:
            there = sorted(str(path.relative_to(base)) for path in base.rglob("*.parquet"))
            shown = f"it has {', '.join(there[:3])}{', …' if there[3:] else ''}" if there else "it has no .parquet file"
            raise DataError(f"no file in {base} matches {pattern} ({shown}); set data.{split}=PATTERN or data.root")
        found += [str(base / match) for match in matches]
    if not found:
        raise DataError(f"data.{split} is an empty list; set data.{split}=PATTERN")
    return list(dict.fromkeys(found))


def _shard(path: str, image_column: str, label_column: str) -> Shard:
    with readable(path):
        status = Path(path).stat()
    return _read_shard(path, (status.st_size, status.st_mtime_ns), image_column, label_column)


# The plan wants the counts, then each split is opened: size and time in the arguments keep the cache honest.
@functools.lru_cache(maxsize=4096)
def _read_shard(path: str, version: tuple[int, int], image_column: str, label_column: str) -> Shard:
    with readable(path):
        file = pq.ParquetFile(path)
        column = _image_leaf(path, file.schema_arrow, image_column)
        if label_column not in file.schema_arrow.names:
            raise _no_column(path, file.schema_arrow, "label_column", label_column)
        labels = _labels(path, label_column, file.read(columns=[label_column], use_threads=False).column(0))
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        columns = [group.column(number) for group in groups for number in range(group.num_columns)]
        size = sum(part.total_uncompressed_size for part in columns if part.path_in_schema == column)
        return Shard(path, version, column, size, labels, _named_classes(file.schema_arrow, label_column))


def _image_leaf(path: str, schema: Any, name: str) -> str:
    if name not in schema.names:
        raise _no_column(path, schema, "image_column", name)
    kind = schema.field(name).type
    if _is_bytes(kind):
        return name
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type):
        return f"{name}.bytes"
    raise DataError(
        f"{path}: the column {name} is {kind}, neither bytes nor a struct with bytes; set data.image_column=NAME"
    )


def _is_bytes(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _no_column(path: str, schema: Any, key: str, name: str) -> DataError:
    near = difflib.get_close_matches(name, schema.names, 1)
    cure = f"set data.{key}={near[0] if near else 'NAME'}"
    return DataError(f"{path} has no column {name} (it has {', '.join(schema.names)}); {cure}")


def _labels(path: str, name: str, column: Any) -> npt.NDArray[np.int32]:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind)):
        raise DataError(f"{path}: the column {name} is {kind}, not integers; set data.label_column=NAME")
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(f"{path} row {row} has no label (null in the column {name}); every image needs one")
    values = column.to_numpy()
    if pa.types.is_floating(kind) and len(wrong := np.flatnonzero(values != np.rint(values))):  # NaN is among these
        what = f"{path} row {wrong[0]} has {name} {values[wrong[0]]:g}, no class number"
        raise DataError(f"{what}; save whole numbers from 0, or set data.label_column=NAME")
    labels: npt.NDArray[np.int64] = values.astype(np.int64)
    _check_range(path, name, labels, MOST_CLASSES, "labels are class numbers; set data.label_column=NAME")
    return labels.astype(np.int32)


def _check_range(path: str, name: str, labels: npt.NDArray[Any], classes: int, cure: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(f"{path} row {wrong[0]} has {name} {labels[wrong[0]]}, not one in 0..{classes - 1}; {cure}")


def _check_labels(shards: Sequence[Shard], name: str, names: tuple[str, ...] | None) -> None:
    for shard in shards if names else ():
        counts_from_1 = len(shard.labels) > 0 and shard.labels.min() == 1 and shard.labels.max() == len(names or ())
        why = "do the labels count from 1? " if counts_from_1 else ""
        cure = f"{why}the files name no more classes; fetch the file again, or set data.label_column=NAME"
        _check_range(shard.path, name, shard.labels, len(names or ()), cure)


def _named_classes(schema: Any, label_column: str) -> tuple[str, ...] | None:
    """What the library `datasets` has written beside the columns: info.features.label.names."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(text)["info"]["features"][label_column]["names"] if text else None
    except (ValueError, LookupError, TypeError):  # another tool's metadata, or a label that is a plain integer
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


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
        return f"{len(names)} and {len(others)}"
    label = next(number for number, (a, b) in enumerate(zip(names, others, strict=True)) if a != b)
    return f"label {label} is {names[label]!r} in one, {others[label]!r} in the other"


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


def no_bytes(path: str, row: int) -> DataError:
    """For a row that names an image file instead of holding it."""
    return DataError(
        f"{path} row {row} has no image bytes (a path alone is not followed); save the files with the images in them, "
        "or read the image files themselves with data.name=image_folder"
    )
