"""A folder tree of images, `ROOT/train/CLASS/**/*.jpg` and `ROOT/val/…`: scanned, and then read file by file.

The plan counts images by the scan, so all of this is the standard library's. What systems and programs leave behind
(`files/leftovers.py`) is neither class nor image; what is passed over is counted, and told in the scan's notes.

What the decoder reads (formats.py) is an image, in whatever case its ending is written. Classes and files come in
torchvision's order (`DatasetFolder`), so labels agree with it, and sample numbers where it reads the same formats.
Paths are kept as one bytes object with offsets: a Python list of ImageNet-22K's 14 million paths would take 2 GB,
and again in every loader worker as reference counts touch its pages.
"""

from __future__ import annotations

import functools
import itertools
import os
import shlex
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from convrun.contracts.data import BadImage, GreyRange
from convrun.data.formats import FORMATS, is_read, usual_endings
from convrun.data.sets.classes import check_is_no_split, one_class, val_notes
from convrun.data.sets.left_out import LeftOut, ending_of, is_image
from convrun.errors import DataError
from convrun.files.leftovers import is_leftover, leftover_kind
from convrun.files.regular_file import opened
from convrun.text.lookalikes import composed, look_alike
from convrun.text.wording import printable

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
    entries = _entries(base, f"set data.root=FOLDER to the one with {train_folder}/ in it")
    present = [name for entry in entries if not is_leftover(name := entry.name, is_folder=entry.is_dir())]
    for key, folder in (("train_folder", train_folder), ("val_folder", val_folder)):
        if folder is not None and not (base / folder).is_dir():
            found = f" (it has {_some(present)})" if present else " (it is empty)"
            if like := look_alike(folder, present):
                found = f": it has {like!a}, which looks like {folder!a}"
            raise DataError(f"{base} has no folder {folder}{found}; set data.root=FOLDER, or data.{key}=NAME")
    train = _split("train", base / train_folder)
    train = replace(train, notes=(*_notes_on_root(base, entries, (train_folder, val_folder)), *train.notes))
    if val_folder is None:
        return train, FolderScan(str(base), train.class_names, b"", array("q", [0]), array("i"))
    return train, _in_classes_of(train, _split("val", base / val_folder, may_lack=True), base)


def _in_classes_of(train: FolderScan, val: FolderScan, base: Path) -> FolderScan:
    cure = f"move some to {train.folder}/CLASS or delete {val.folder}/CLASS; or data.val_folder=null evaluation=null"
    notes = val_notes(str(base), train.class_names, val.class_names, cure)
    if val.class_names == train.class_names:
        return val
    numbers = {name: label for label, name in enumerate(train.class_names)}
    own = [numbers[name] for name in val.class_names]
    labels = array("i", (own[label] for label in val.labels))
    return replace(val, class_names=train.class_names, labels=labels, notes=(*val.notes, *notes))


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
    return sorted(
        entry.name
        for entry in _entries(Path(folder), "")
        if entry.is_dir() and not is_leftover(entry.name, is_folder=True)
    )


def _notes_on_root(base: Path, entries: Sequence[os.DirEntry[str]], used: Sequence[str | None]) -> list[str]:
    """About what lies beside the folders of the splits; a hidden folder that the recipe names is used."""
    if any(name is not None and (base / name).resolve() == base.resolve() for name in used):
        return []  # the split's own notes tell
    found, first_parts = LeftOut(), {Path(name).parts[0] for name in used if name}
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.name in first_parts:
            continue
        if kind := leftover_kind(entry.name, is_folder=entry.is_dir()):
            found.leftovers.add(kind, entry.name)
        elif not entry.is_dir() and is_image(ending := ending_of(entry.name)):
            found.beside.add(ending, entry.name)
    return found.notes(printable(str(base)), f"{base}/{used[0]}")


def _split(name: str, folder: Path, may_lack: bool = False) -> FolderScan:
    """The scan of one split; one that `may_lack` images of some class does without them."""
    classes, beside = _list_classes(folder)
    scan, inside = _scan(str(folder), classes, may_lack)
    return replace(scan, notes=tuple((beside + inside).notes(name, str(folder))))


def _entries(folder: Path, cure: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        like = look_alike(folder.name, _names_in(folder.parent))
        near = f": {like!a} is there, which looks like {folder.name!a}" if like else ""
        raise DataError(f"the folder {folder} does not exist{near}; {cure}") from None
    except NotADirectoryError:
        raise DataError(f"{folder} is not a folder; {cure}") from None
    except OSError as error:
        raise _unreadable(error) from None


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []


def _unreadable(error: OSError) -> DataError:
    return DataError(f"the folder {error.filename} cannot be read: {error.strerror}; check who may read it")


def _list_classes(folder: Path) -> tuple[tuple[tuple[str, str, int], ...], LeftOut]:
    """Each class, its folder and the time of that folder's last change; and what lies beside them.

    A class has the folder's name, composed: systems write accents in two ways, and a copy may change them. Sorted by
    that, labels do not depend on the system.
    """
    found, beside = [], LeftOut()
    for entry in sorted(_entries(folder, "set data.root=FOLDER"), key=lambda entry: entry.name):
        is_folder = entry.is_dir()
        if kind := leftover_kind(entry.name, is_folder=is_folder):
            beside.leftovers.add(kind, entry.name)
        elif not is_folder:
            beside.beside.add(ending_of(entry.name), entry.name)
        else:
            found.append((entry.name, entry.stat().st_mtime_ns))
    classes = sorted((composed(name), name, time) for name, time in found)
    if not classes:
        ignored = f" (ignored: {beside.leftovers.text()})" if beside.leftovers.total else ""
        raise DataError(
            f"{folder} has no class folder{ignored}; images belong in {folder}/CLASS/, one folder for each class"
        )
    for _, name, _ in classes:
        if name != name.encode(errors="replace").decode():  # it will stand in tables, JSON and file headers
            raise DataError(f"the class folder {folder}/{printable(name)} has a name that is not UTF-8; rename it")
    for (name, first, _), (other, second, _) in itertools.pairwise(classes):
        if name == other:
            raise DataError(
                f"{folder} has two folders of one name, {first!a} and {second!a}: an accent is part of its "
                f"letter in one, and follows it in the other. Move the images of {second!a} to {first!a}, or "
                "rename one of them if they are two classes"
            )
    return tuple(classes), beside


def _some(names: Collection[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


# The plan wants the counts, then each split is opened: the classes' times in the arguments keep the cache honest.
@functools.lru_cache(maxsize=4)
def _scan(folder: str, classes: tuple[tuple[str, str, int], ...], may_lack: bool = False) -> tuple[FolderScan, LeftOut]:
    paths, offsets, labels, left_out = bytearray(), array("q", [0]), array("i"), LeftOut()
    found: list[str] = []
    empty: dict[str, LeftOut] = {}
    for name, class_folder, _ in classes:
        before, of_class = len(labels), LeftOut()
        for path in _images_in(f"{folder}/{class_folder}", len(folder) + 1, of_class):
            paths += os.fsencode(path)
            offsets.append(len(paths))
            labels.append(len(found))
        if len(labels) > before:
            found.append(name)
        else:
            empty[name] = of_class
        left_out += of_class
    if empty and not (may_lack and found):
        raise _no_images(folder, empty)
    return FolderScan(folder, tuple(found), bytes(paths), offsets, labels), left_out


def _no_images(folder: str, empty: Mapping[str, LeftOut]) -> DataError:
    one = len(empty) == 1
    held = functools.reduce(LeftOut.__add__, empty.values()).text(folder)
    return DataError(
        f"{folder}: no image in class folder{'' if one else 's'} {_some(empty)}{held and f' (left out: {held})'}; "
        f"add images ({', '.join(FORMATS)}) or delete {'it' if one else 'them'}"
    )


def _images_in(class_folder: str, start: int, left_out: LeftOut) -> Iterator[str]:
    """Paths of images, from their character `start` on; what else is there is counted in `left_out`."""
    usual = usual_endings()
    # Sorted by whole folder path, then by file name, as torchvision does: `a-b/` comes before `a/c/`.
    for folder, _, files in sorted(_walk(class_folder, start, left_out)):
        below = folder[start:]
        for file in sorted(files):
            # The two tests that nearly all images pass come first: there are millions, and few of anything else.
            if file[0] != "." and (file.endswith(usual) or is_read(file)):
                yield f"{below}/{file}"
            elif kind := leftover_kind(file):
                left_out.leftovers.add(kind, f"{below}/{file}")
            else:
                left_out.unread.add(ending_of(file), f"{below}/{file}")


def _walk(class_folder: str, start: int, left_out: LeftOut) -> Iterator[tuple[str, list[str], list[str]]]:
    for found in os.walk(class_folder, onerror=_raise_unreadable, followlinks=True):
        if os.path.islink(found[0]):  # noqa: PTH114  (as fast as a walk should be)
            above = os.path.realpath(os.path.dirname(found[0]))  # noqa: PTH120
            target = os.path.realpath(found[0])
            if os.path.commonpath([above, target]) == target:
                # The kernel would follow it forty times, and each image would be there as often.
                raise DataError(f"the link {printable(found[0])} leads back to {target}, which it lies in; delete it")
        for name in sorted(found[1]):
            if kind := leftover_kind(name, is_folder=True):
                left_out.leftovers.add(kind, f"{found[0][start:]}/{name}")
                found[1].remove(name)  # os.walk goes into those that stay
        yield found


def _raise_unreadable(error: OSError) -> None:
    raise _unreadable(error) from None
