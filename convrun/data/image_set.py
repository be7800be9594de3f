"""What every data set offers (`ImageSet`), and the one way in which files become images (`decode`)."""

from __future__ import annotations

import functools
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from convrun.errors import DataError
from convrun.files.regular_file import opened
from convrun.text.wording import printable

# Pillow knows dozens of formats, and hands some to other programs: of an EPS file, Ghostscript runs the code.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF")

# Broken metadata, a palette's transparency, many pixels: Pillow's advice to programmers, once an image and worker.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BadImage(DataError):
    """One image cannot be read, whatever is tried: `data.bad_images` says what happens then.

    Attributes:
        reason: why, without the image's name.
    """

    def __init__(self, split: str, place: str, reason: str) -> None:
        super().__init__(
            f"split {split}, image {printable(place)} cannot be decoded: {reason}; replace the file, delete it, or "
            "set data.bad_images=skip"
        )
        self.reason = reason


def decode(source: bytes | str | Path, *, split: str, place: str) -> Image.Image:
    """An encoded image as RGB pixels: what torchvision's `pil_loader` gives, so no rotation by EXIF.

    Of an animation it is the first frame; transparency is dropped. The one difference: of grey values with 16 bits it
    keeps the high byte, as Pillow does with 16-bit colours, where `pil_loader` turns all above 255 into white.

    Args:
        source: the file, or its content.
        split: `train` or `val`, for the message.
        place: where the image is, for the message.

    Raises:
        BadImage: it cannot be read or decoded.
        DataError: there is no memory for it.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else opened(source) as file:
            return _rgb(Image.open(file, formats=_formats()))
    except MemoryError:
        raise DataError(
            f"split {split}, image {printable(place)}: no memory left to decode it; lower data.workers or data.prefetch"
        ) from None
    except Exception as error:  # on a broken file PIL raises nearly anything: OSError, SyntaxError, struct.error, …
        raise BadImage(split, place, reason_of(error)) from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # "I" in Pillow before 11.3
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floating point"
        raise ValueError(f"its pixels are {kind} with 32 bits, and nothing tells which value is white")
    return image.convert("RGB")


def reason_of(error: Exception) -> str:
    """Why an image cannot be read, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is not an image of a format that convrun reads ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"its header claims more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, so it is not decoded"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(str(error)) or type(error).__name__
