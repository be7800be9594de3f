"""What every data set offers (`ImageSet`), and the one way in which files become images (`decode`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from convrun.errors import DataError


class ImageSet(Protocol):
    """One split of a data set: RGB images with labels in `range(len(class_names))`, found by index.

    It is copied into loader workers, so it pickles, and `load` draws nothing at random.
    """

    def __len__(self) -> int:
        """The number of images."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """One name a label."""
        ...

    def load(self, index: int) -> tuple[Image.Image, int]:
        """The image (mode RGB) and its label.

        Raises:
            DataError: the image cannot be read; names it.
        """
        ...

    def place(self, index: int) -> str:
        """Where the image is, for messages: a path, or `digits.npz train image 17`."""
        ...


def decode(source: bytes | str | Path, *, split: str, place: str) -> Image.Image:
    """An encoded image as RGB pixels: what torchvision's `pil_loader` gives, so no rotation by EXIF.

    Args:
        source: the file, or its content.
        split: `train` or `val`, for the message.
        place: where the image is, for the message.

    Raises:
        DataError: it cannot be read or decoded.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            return Image.open(file).convert("RGB")
    except Exception as error:  # on a broken file PIL raises nearly anything: OSError, SyntaxError, struct.error, …
        raise DataError(
            f"split {split}, image {place} cannot be decoded: {_reason(error)}; replace the file or delete it"
        ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a format that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
