"""What an image set gives becomes an RGB image: the one place where a decoder is chosen."""

from __future__ import annotations

import functools
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from convrun.contracts.data import BadImage
from convrun.text.wording import printable

if TYPE_CHECKING:
    from convrun.contracts.data import Content

# Pillow knows dozens of formats, and hands some to other programs: of an EPS file, Ghostscript runs the code.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF")

# Broken metadata, a palette's transparency, many pixels: Pillow's advice to programmers, once an image and worker.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(content: Content) -> Image.Image:
    """An image as RGB pixels: of an encoded one, what torchvision's `pil_loader` gives, so no rotation by EXIF.

    Of an animation it is the first frame; transparency is dropped. The one difference: of grey values with 16 bits it
    keeps the high byte, as Pillow does with 16-bit colours, where `pil_loader` turns all above 255 into white.

    Args:
        content: an encoded image, uint8 [height, width] or [height, width, 3], or an image of PIL's.

    Raises:
        BadImage: it cannot be decoded.
        MemoryError: there is no memory for it.
        TypeError: it is something else.
    """
    if isinstance(content, np.ndarray):
        return _from_array(content)
    if not isinstance(content, bytes | Image.Image):
        raise TypeError(f"{type(content).__name__} is neither bytes nor a uint8 array nor an image of PIL's")
    try:
        # Image.open reads the header alone; the pixels are decoded in _rgb, and PIL releases the GIL while it does.
        image = Image.open(io.BytesIO(content), formats=_formats()) if isinstance(content, bytes) else content
        return _rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # on a broken file PIL raises nearly anything: OSError, SyntaxError, struct.error, …
        raise BadImage(reason_of(error)) from error


def _from_array(pixels: npt.NDArray[Any]) -> Image.Image:
    is_grey, is_colour = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (is_grey or is_colour):
        raise TypeError(f"an array is {pixels.dtype} {list(pixels.shape)}, not uint8 [h, w] or [h, w, 3]")
    image = Image.fromarray(pixels)  # copies the pixels, so augmentations cannot change the set's own
    return image.convert("RGB") if is_grey else image


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
    image.load()  # decodes
    return image if image.mode == "RGB" else image.convert("RGB")  # of RGB, convert would only make a copy


def reason_of(error: Exception) -> str:
    """Why an image cannot be read, in one line."""
    if isinstance(error, BadImage):
        return error.reason
    if isinstance(error, UnidentifiedImageError):
        return f"it is not an image of a format that convrun reads ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"its header claims more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, so it is not decoded"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(str(error)) or type(error).__name__
