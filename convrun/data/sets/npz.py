"""A MedMNIST-style `.npz` file as an image set, held in memory.

Arrays: `train_images` and `val_images`, uint8 [n, h, w] or [n, h, w, 3]; `train_labels` and `val_labels`, integers [n]
or [n, 1]; optionally `class_names`, text [classes]. Pickled objects are never loaded.
"""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convrun.data.sets.classes import numbered_notes
from convrun.errors import DataError
from convrun.text.lookalikes import composed_names

Array = npt.NDArray[Any]
CURE = "set data.path=FILE to an .npz file with train_images, train_labels, val_images and val_labels"


@dataclass(frozen=True)
class NpzScan:
    """What the labels of a file say.

    Attributes:
        class_names: the file's `class_names`, or the labels as text.
        labels: of each split, int64 [n].
        notes: of each split, what a user must know.
    """

    class_names: tuple[str, ...]
    labels: Mapping[str, npt.NDArray[np.int64]]
    notes: Mapping[str, tuple[str, ...]]


class NpzImages:
    """One split of an `.npz` file."""

    def __init__(
        self,
        path: str,
        split: str,
        *,
        val: str | None = "val",
        num_classes: int | None = None,
        name: str | None = None,
    ) -> None:
        self._name, self._split = name or path, split
        scan = scan_npz(path, val, num_classes)
        self._class_names, self._labels, self.notes = scan.class_names, scan.labels[split], scan.notes[split]
        prefix = "train" if split == "train" else val
        if prefix is None:
            return
        self._images = _read_images(path, prefix)
        if len(self._images) != len(self._labels):
            raise DataError(
                f"{path}: {prefix}_images has {len(self._images)} images but {prefix}_labels has {len(self._labels)} "
                "labels; save one label for each image"
            )

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def class_names(self) -> Sequence[str]:
        """The file's `class_names`, or the labels as text."""
        return self._class_names

    def read(self, index: int) -> tuple[Array, int]:
        """The image, uint8 [h, w] or [h, w, 3], and its label."""
        return self._images[index], int(self._labels[index])

    def place(self, index: int) -> str:
        """`digits.npz train image 17`."""
        return f"{self._name} {self._split} image {index}"


def scan_npz(path: str, val: str | None = "val", num_classes: int | None = None) -> NpzScan:
    """Classes and labels, read from the labels alone; `val` names the arrays of validation images, if there are any.

    Without `class_names` in the file, the labels say how many classes there are at least, and `num_classes` may say
    that there are more.

    Raises:
        DataError: the file is missing or broken, or its labels are.
    """
    labels = {"train": _read_labels(path, "train"), "val": np.zeros(0, np.int64)}
    if val is not None:
        labels["val"] = _read_labels(path, val)
    highest = max(int(found.max(initial=0)) for found in labels.values())
    names = _class_names(path, {"train": labels["train"], val or "": labels["val"]})
    is_meant = names is not None or (num_classes or 0) > highest
    names = names or tuple(str(label) for label in range(max(highest + 1, num_classes or 0)))
    in_train, in_val = (np.unique(of_split).tolist() for of_split in labels.values())
    cure = f"move some of them from {val}_images and {val}_labels to train_images and train_labels, or leave them out"
    images = len(labels["train"])
    notes = numbered_notes(path, names, images, in_train, in_val, numbers_are_meant=is_meant, cure=cure)
    return NpzScan(names, labels, notes)


def _class_names(path: str, labels: Mapping[str, npt.NDArray[np.int64]]) -> tuple[str, ...] | None:
    with _opened(path) as file:
        has_names = "class_names" in file.files
    if not has_names:
        return None
    names = _read(path, "class_names")
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(f"{path}: class_names is {_shape(names)}, not text [classes]; save a list of names")
    for split, found in labels.items():
        if found.max(initial=0) >= len(names):
            why = " (do they count from 1?)" if found.min() == 1 and found.max() == len(names) else ""
            raise DataError(
                f"{path}: {split}_labels go up to {found.max()}, but class_names has {len(names)} names{why}; "
                f"labels must lie in 0..{len(names) - 1}"
            )
    return composed_names(names.tolist())


def _read_labels(path: str, split: str) -> npt.NDArray[np.int64]:
    labels = _read(path, f"{split}_labels")
    is_column = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)
    if labels.dtype.kind not in "iubf" or not is_column:
        raise DataError(
            f"{path}: {split}_labels is {_shape(labels)}, not integers [n] or [n, 1]; save one class number an image"
        )
    if labels.size == 0:
        raise DataError(f"{path}: {split}_labels is empty; a split needs images")
    whole = labels.dtype.kind != "f" or labels == np.rint(labels)  # NaN differs from all, and so is not whole
    if not np.all(whole):
        first = int(np.flatnonzero(~np.asarray(whole))[0])
        value = labels.reshape(-1)[first]
        raise DataError(f"{path}: {split}_labels has {value:g} at {first}, no class number; save whole numbers from 0")
    if labels.min() < 0:
        raise DataError(f"{path}: {split}_labels go down to {labels.min():g}; classes are counted from 0")
    column: npt.NDArray[np.int64] = labels.reshape(-1).astype(np.int64)
    return column


def _read_images(path: str, split: str) -> Array:
    images = _read(path, f"{split}_images")
    is_rgb = images.ndim == 4 and images.shape[3] == 3
    if images.dtype != np.uint8 or not (images.ndim == 3 or is_rgb):
        raise DataError(
            f"{path}: {split}_images is {_shape(images)}, not uint8 [n, h, w] or [n, h, w, 3]; convert it before saving"
        )
    return images


def _shape(array: Array) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _read(path: str, key: str) -> Array:
    with _opened(path) as file:
        if key not in file.files:
            has = f"{path} has no array {key} (it has {', '.join(file.files) or 'none'})"
            raise DataError(f"{has}; {CURE}{_other_val(key, file.files)}")
        array: Array = file[key]
        return array


def _other_val(key: str, there: Sequence[str]) -> str:
    """What to set where a file has no arrays for validation."""
    if key.startswith("train_") or key == "class_names" or "train_images" not in there:
        return ""
    others = [name.removesuffix("_labels") for name in there if name.endswith("_labels")]
    found = next((name for name in others if name != "train"), None)
    return f", {f'data.val={found}, ' if found else ''}or data.val=null evaluation=null"


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    try:
        file = np.load(Path(path).expanduser(), allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("it is one array, an .npy file")
        with file:
            yield file
    except FileNotFoundError:
        raise DataError(f"the file {path} does not exist; {CURE}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "it holds pickled objects, or is no .npz file" if "pickle" in str(error) else str(error)
        raise DataError(f"{path} cannot be read: {reason}; {CURE}") from None
