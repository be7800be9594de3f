"""Reading single images as the pipeline does, for tests."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import Any

from PIL import Image

from convrun.data.sample import Images
from convrun.data.sets.image_folder import FolderScan, ImageFolder


def load(images: Any, index: int, split: str = "train") -> tuple[Image.Image, int]:
    """An image, decoded, and its label."""
    found = Images(images, split).load(index)
    assert isinstance(found, tuple)
    return found


def one_file(path: Path) -> ImageFolder:
    """A split of one file."""
    name = os.fsencode(path.name)
    return ImageFolder(FolderScan(str(path.parent), ("a",), name, array("q", [0, len(name)]), array("i", [0])))
