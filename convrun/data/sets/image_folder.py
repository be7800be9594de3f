"""A folder tree of images, `ROOT/train/CLASS/**/*.jpg` and `ROOT/val/…`: scanned, and then read file by file.

The plan counts images by the scan, so all of this is the standard library's.

Classes and files come in torchvision's order (`DatasetFolder`), so labels and sample numbers agree with it.
Paths are kept as one bytes object with offsets: a Python list of ImageNet-22K's 14 million paths would take 2 GB,
and again in every loader worker as reference counts touch its pages.
"""

from __future__ import annotations

import functools
import os
import shlex
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from convrun.contracts.data import BadImage, GreyRange
from convrun.data.sets.classes import check_is_no_split, one_class, val_notes
from convrun.errors import DataError
from convrun.files.regular_file import opened
from convrun.text.wording import printable

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# The largest image that is decoded (decode.py) takes less, uncompressed, in 16 bits and four channels.
MOST_BYTES = 2 << 30


@dataclass(frozen=True)
class FolderScan:
    """The images of one split.

    Attributes:
        folder: `ROOT/train`.
        class_names: the class folders of train, sorted.
        paths: the images' paths below `folder`, end to end.
        offsets: where each path starts in `paths`, and the end of the last.
        labels: each image's class.
        notes: what a user must know of the split.
    """

    folder: str
    class_names: tuple[str, ...]
    paths: bytes = field(repr=False)
    offsets: array[int] = field(repr=False)
    labels: array[int] = field(repr=False)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


class ImageFolder:
    """One split of a scanned tree; an image is read from its file each time."""

    def __init__(self, scan: FolderScan, grey_range: GreyRange | None = None) -> None:
        self._scan, self.grey_range = scan, grey_range

    def __len__(self) -> int:
        return len(self._scan)

    @property
    def class_names(self) -> Sequence[str]:
        """The class folders, sorted."""
        return self._scan.class_names

    @property
    def notes(self) -> Sequence[str]:
        """What a user must know of the split."""
        return self._scan.notes

    def read(self, index: int) -> tuple[bytes, int]:
        """The file's content, in one piece, and its label."""
        try:
            with opened(self._path(index)) as file:
                if os.fstat(file.fileno()).st_size > MOST_BYTES:
                    raise ValueError(f"it has more than {MOST_BYTES:,} bytes, as no image has that could be decoded")
                return file.read(), self._scan.labels[index]
        except ValueError as error:  # a pipe, a device, an empty file
            raise BadImage(str(error)) from None

    def place(self, index: int) -> str:
        """The file's path; what cannot be printed of it is escaped."""
        return printable(self._path(index))

    def _path(self, index: int) -> str:
        name = self._scan.paths[self._scan.offsets[index] : self._scan.offsets[index + 1]]
        return f"{self._scan.folder}/{os.fsdecode(name)}"


def scan_tree(root: str, train_folder: str = "train", val_folder: str | None = "val") -> tuple[FolderScan, FolderScan]:
    """The train and val splits of a tree; without a folder of its own, val is empty.

    Labels are those of train's classes. A second call costs one look at each class folder, as long as none of them has
    changed.

    Raises:
        DataError: a folder is missing, empty or unreadable, or val has a class that train lacks.
    """
    base = Path(root).expanduser()
    present = [entry.name for entry in _entries(base, f"set data.root=FOLDER to the one with {train_folder}/ in it")]
    for key, name in (("train_folder", train_folder), ("val_folder", val_folder)):
        if name is not None and not (base / name).is_dir():
            found = f" (it has {_some(present)})" if present else " (it is empty)"
            raise DataError(f"{base} has no folder {name}{found}; set data.root=FOLDER, or data.{key}=NAME")
    train = _scan(str(base / train_folder), _list_classes(base / train_folder))
    if val_folder is None:
        return train, FolderScan(str(base), train.class_names, b"", array("q", [0]), array("i"))
    val = _scan(str(base / val_folder), _list_classes(base / val_folder), may_lack=True)
    return train, _in_classes_of(train, val, base)


def _in_classes_of(train: FolderScan, val: FolderScan, base: Path) -> FolderScan:
    cure = f"move some to {train.folder}/CLASS or delete {val.folder}/CLASS; or data.val_folder=null evaluation=null"
    notes = val_notes(str(base), train.class_names, val.class_names, cure)
    if val.class_names == train.class_names:
        return val
    numbers = {name: label for label, name in enumerate(train.class_names)}
    own = [numbers[name] for name in val.class_names]
    labels = array("i", (own[label] for label in val.labels))
    return replace(val, class_names=train.class_names, labels=labels, notes=notes)


def check_class_folders(train: FolderScan, root: str, train_folder: str, val_folder: str | None) -> None:
    """Raises DataError if what was taken for classes are folders above or beside them."""
    check_is_no_split(train.folder, train.class_names, train_folder)
    if len(train.class_names) > 1:
        return
    name, cure = train.class_names[0], "give the images of each class a folder of their own"
    below = name
    while inside := _folders_in(f"{train.folder}/{below}"):
        if len(inside) > 1:
            deeper = " ".join(
                f"data.{key}={shlex.quote(os.path.normpath(f'{folder}/{below}'))}"
                for key, folder in (("train_folder", train_folder), ("val_folder", val_folder))
                if folder is not None
            )
            cure = f"is the root one level too high? {printable(f'{train.folder}/{below}')} holds the folders "
            cure += f"{_some(inside)}. If those are the classes, set {deeper}"
            break
        below = f"{below}/{inside[0]}"
    raise one_class(train.folder, name, cure)


def _folders_in(folder: str) -> list[str]:
    return sorted(entry.name for entry in _entries(Path(folder), "") if entry.is_dir() and entry.name[0] != ".")


def _entries(folder: Path, cure: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        raise DataError(f"the folder {folder} does not exist; {cure}") from None
    except NotADirectoryError:
        raise DataError(f"{folder} is not a folder; {cure}") from None
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> DataError:
    return DataError(f"the folder {error.filename} cannot be read: {error.strerror}; check who may read it")


def _list_classes(folder: Path) -> tuple[tuple[str, int], ...]:
    """Each class folder with the time of its last change."""
    entries = _entries(folder, "set data.root=FOLDER")
    classes = sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries if entry.is_dir())
    if not classes:
        raise DataError(f"{folder} has no class folder; images belong in {folder}/CLASS/, one folder for each class")
    for name, _ in classes:
        if name != name.encode(errors="replace").decode():  # it will stand in tables, JSON and file headers
            raise DataError(f"the class folder {folder}/{printable(name)} has a name that is not UTF-8; rename it")
    return tuple(classes)


def _some(names: Collection[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


# The plan wants the counts, then each split is opened: the classes' times in the arguments keep the cache honest.
@functools.lru_cache(maxsize=4)
def _scan(folder: str, classes: tuple[tuple[str, int], ...], may_lack: bool = False) -> FolderScan:
    paths, offsets, labels = bytearray(), array("q", [0]), array("i")
    found: list[str] = []
    empty: list[str] = []
    for name, _ in classes:
        before = len(labels)
        for path in _images_in(f"{folder}/{name}"):
            paths += os.fsencode(path[len(folder) + 1 :])
            offsets.append(len(paths))
            labels.append(len(found))
        (found if len(labels) > before else empty).append(name)
    if empty and not (may_lack and found):
        one = len(empty) == 1
        raise DataError(
            f"{folder}: no image in class folder{'' if one else 's'} {_some(empty)}; add images "
            f"({', '.join(EXTENSIONS)}) or delete {'it' if one else 'them'}"
        )
    return FolderScan(folder, tuple(found), bytes(paths), offsets, labels)


def _images_in(class_folder: str) -> Iterator[str]:
    # Sorted by whole folder path, then by file name, as torchvision does: `a-b/` comes before `a/c/`.
    for folder, _, files in sorted(_walk(class_folder)):
        for file in sorted(files):
            if file.lower().endswith(EXTENSIONS):
                yield f"{folder}/{file}"


def _walk(class_folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    for found in os.walk(class_folder, onerror=_raise_unreadable, followlinks=True):
        if os.path.islink(found[0]):  # noqa: PTH114  (as fast as a walk should be)
            above = os.path.realpath(os.path.dirname(found[0]))  # noqa: PTH120
            target = os.path.realpath(found[0])
            if os.path.commonpath([above, target]) == target:
                # The kernel would follow it forty times, and each image would be there as often.
                raise DataError(f"the link {printable(found[0])} leads back to {target}, which it lies in; delete it")
        yield found


def _raise_unreadable(error: OSError) -> None:
    raise _unreadable(error) from None
