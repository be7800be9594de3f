"""A folder tree of image files as an image set."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from convrun.data.folder_scan import FolderScan
from convrun.data.image_set import decode
from convrun.text.wording import printable


class ImageFolder:
    """One split of a scanned tree; an image is read from its file each time."""

    def __init__(self, scan: FolderScan, split: str) -> None:
        self._folder, self._split, self._class_names = scan.folder, split, scan.class_names
        self._paths = scan.paths
        self._offsets = np.frombuffer(scan.offsets, dtype=np.int64)
        self._labels = np.frombuffer(scan.labels, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def class_names(self) -> Sequence[str]:
        """The class folders, sorted."""
        return self._class_names

    def load(self, index: int) -> tuple[Image.Image, int]:
        """The image, decoded as RGB, and its label."""
        path = self._path(index)
        return decode(path, split=self._split, place=path), int(self._labels[index])

    def place(self, index: int) -> str:
        """The file's path; what cannot be printed of it is escaped."""
        return printable(self._path(index))

    def _path(self, index: int) -> str:
        name = self._paths[self._offsets[index] : self._offsets[index + 1]]
        return f"{self._folder}/{os.fsdecode(name)}"
