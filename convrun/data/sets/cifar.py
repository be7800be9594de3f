"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) as they are published: pickled batches, read by torchvision.

Unpickling can run code, so only the published files are ever unpickled: torchvision compares the MD5 of every batch
with the published one first, and refuses the whole set if one differs.
"""

from __future__ import annotations

import contextlib
import fcntl
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from convrun.errors import DataError

READERS = {"cifar10": CIFAR10, "cifar100": CIFAR100}


class CifarImages:
    """One split of CIFAR-10 or CIFAR-100, held in memory; val is the published test set."""

    def __init__(self, name: str, root: str, split: str, *, download: bool = False) -> None:
        self._name, self._split = name, split
        data = _read(name, Path(root).expanduser(), split, download)
        self._images = data.data
        self._labels = np.asarray(data.targets, dtype=np.int64)
        self._class_names = tuple(data.classes)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def class_names(self) -> Sequence[str]:
        """The published names."""
        return self._class_names

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], int]:
        """The image, uint8 [32, 32, 3], and its label."""
        return self._images[index], int(self._labels[index])

    def place(self, index: int) -> str:
        """`cifar10 train image 17`."""
        return f"{self._name} {self._split} image {index}"


def _read(name: str, root: Path, split: str, download: bool) -> Any:
    reader = READERS[name]
    if download:
        _download(reader, name, root)
    try:
        return reader(root, train=split == "train")
    except RuntimeError as error:  # torchvision does not say which file
        folder = root / reader.base_folder
        raise DataError(
            f"{name}: {_first_bad_file(reader, folder) or error}; set data.root=FOLDER to the one with "
            f"{reader.base_folder}/ in it, or data.download=true to fetch the files"
        ) from None


def _first_bad_file(reader: Any, folder: Path) -> str:
    published = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
    for file, md5 in published:
        if not (folder / file).is_file():
            return f"{folder / file} is missing"
        if not check_integrity(folder / file, md5):
            return f"{folder / file} is not the published file (its MD5 differs), so it is not opened"
    return ""


def _download(reader: Any, name: str, root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(root / f".{name}.lock"):
            reader(root, download=True)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:  # URLError is an OSError
        raise DataError(
            f"{name} cannot be downloaded from {reader.url} to {root}: {error}; fetch and unpack the file there on a "
            "machine with internet access, then set data.download=false"
        ) from None


@contextlib.contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """The processes of a run all want the files: the first fetches them, the others wait."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
