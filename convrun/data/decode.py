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
from convrun.data.formats import FORMATS, is_built_in
from convrun.text.wording import printable

if TYPE_CHECKING:
    from convrun.contracts.data import Content, GreyRange

PNG = b"\x89PNG\r\n\x1a\n"
METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf")

# Broken metadata, a palette's transparency, many pixels: Pillow's advice to programmers, once an image and worker.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnclearRange(Exception):
    """Values of more than 8 bits lie where the default would leave next to nothing of the picture.

    Attributes:
        cure: what to do.
    """

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.cure = cure


def decode(content: Content, grey_range: GreyRange | None = None) -> Image.Image:
    """An image as RGB pixels: of an encoded one, what torchvision's `pil_loader` gives, so no rotation by EXIF.

    Of an animation it is the first frame; transparency is dropped. The one difference: grey values with 16 bits are
    scaled by a range that is the same for all images, where `pil_loader` turns all above 255 into white.

    Args:
        content: an encoded image, uint8 [height, width] or [height, width, 3], or an image of PIL's.
        grey_range: the values that become black and white, of grey images with more than 8 bits; None: 0 and 65,535,
            of which the high byte stays, as Pillow does with 16-bit colours.

    Raises:
        BadImage: it cannot be decoded.
        UnclearRange: its values use so little of the default range that the picture would be lost.
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
        return _rgb(image, grey_range)
    except (MemoryError, UnclearRange):
        raise
    except Exception as error:  # on a broken file PIL raises nearly anything: OSError, SyntaxError, struct.error, …
        if isinstance(content, bytes) and 0 < len(bare := _without_metadata(content)) < len(content):
            return decode(bare, grey_range)  # Pillow limits a PNG's texts and profile, of which we want none
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
    return tuple(name for name in FORMATS if name in Image.OPEN and is_built_in(name))


def _without_metadata(content: bytes) -> bytes:
    """A PNG file without the chunks that hold METADATA; nothing for any other file."""
    if not content.startswith(PNG):
        return b""
    kept, at = [PNG], len(PNG)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4])  # length, name, content, check sum
        if content[at + 4 : at + 8] not in METADATA:
            kept.append(content[at:end])
        at = end
    return b"".join(kept)


def _rgb(image: Image.Image, grey_range: GreyRange | None) -> Image.Image:
    is_deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    # "I" is 16-bit PNG before Pillow 11.3, and PGM, whose header tells which value is white: Pillow scales by it.
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if has_16_bits or image.mode in ("I", "F"):
        # PFM ("F") is of that format too, but its header does not tell which value is white.
        is_scaled = image.format == "PPM" and image.mode != "F" and not is_deep
        return _grey(np.asarray(image), has_16_bits, None if is_scaled else grey_range, is_scaled)
    image.load()  # decodes
    rgb = image if image.mode == "RGB" else image.convert("RGB")  # of RGB, convert would only make a copy
    if is_deep:
        _check_colours(rgb)
    return rgb


def _grey(values: npt.NDArray[Any], has_16_bits: bool, grey_range: GreyRange | None, is_scaled: bool) -> Image.Image:
    if grey_range is not None:
        black, white = grey_range
        if 2 * np.count_nonzero(values > white) > values.size:
            found = f"most of its values are above {white:g}, up to {values.max():g}"
            raise UnclearRange(f"would nearly vanish: {found}", "set the upper end of data.grey_range to what is white")
        share = (np.nan_to_num(values.astype(np.float32), nan=black) - black) / (white - black)
        pixels = np.rint(np.clip(share, 0, 1) * 255)
    elif has_16_bits:
        pixels = values >> 8
        if not is_scaled:
            _check_greys(int(values.min()), int(values.max()))
    else:
        kind = "floating point" if values.dtype.kind == "f" else "integers"
        raise ValueError(
            f"its pixels are {kind} with 32 bits, and nothing tells which value is white: set "
            "data.grey_range=[BLACK, WHITE]"
        )
    return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")


def _check_greys(low: int, high: int) -> None:
    """Raises UnclearRange if all would be darker than a quarter of white, or have fewer than 16 of 256 levels."""
    if high and (high < 64 << 8 or low < high < low + (16 << 8)):
        bits = next((white for white in (1, 255, 1023, 4095, 16383) if high <= white), None)
        shown = f"[{low}, {high}]" if bits is None else f"[0, {bits}]"
        raise UnclearRange(
            f"would nearly vanish: its grey values have 16 bits and lie in {low}..{high}, of 0..65535",
            f"set data.grey_range={shown}, or to the values that are black and white in all images",
        )


def _check_colours(rgb: Image.Image) -> None:
    """The same for colours of 16 bits, of which Pillow keeps the high byte: black may be all that is left."""
    bands: Any = rgb.getextrema()
    low, high = min(low for low, _ in bands), max(high for _, high in bands)
    if high < 64 or low < high < low + 16:
        raise UnclearRange(
            f"would nearly vanish: its colours have 16 bits, and their high bytes lie in {low}..{high}, of 0..255",
            "convert the images to 8 bits",
        )


def reason_of(error: Exception) -> str:
    """Why an image cannot be read, in one line."""
    if isinstance(error, BadImage):
        return error.reason
    if isinstance(error, UnidentifiedImageError):
        return f"it is not an image of a format that convrun reads ({', '.join(_formats())})"
    if isinstance(error, Image.DecompressionBombError):
        return f"its header claims more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, so it is not decoded"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(str(error)) or type(error).__name__
