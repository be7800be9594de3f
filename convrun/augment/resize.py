"""Resizing with Pillow's filters in a fixed order: all rows first, then all columns.

Pillow up to 12 and torch's uint8 resize use this order, too. Pillow 13 begins with the columns if the height shrinks
much more than the width, which changes one training crop in seven by up to 14 levels. Two calls of one pass each give
the pixels of Pillow 12 in any version.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Box = tuple[int, int, int, int]
Array = npt.NDArray[Any]
# If the resized image has more than this many times the pixels of its source and of the part cut out of it, only that
# part is computed, to save memory. Photographs stay below 2; a strip of 2 × 30,000 pixels would have 9,000 times.
ROOM = 8


def resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """The image with a width and a height in pixels. PIL's filters widen with the reduction, so they do not alias."""
    return resized_part(image, size, (0, 0, *size), resample)


def resized_part(image: Image.Image, size: tuple[int, int], box: Box, resample: Image.Resampling) -> Image.Image:
    """The part `box` of the image resized to `size`: the same pixels, with memory in proportion to image and box.

    Args:
        image: in RGB.
        size: width and height of the whole resized image.
        box: left, top, right, bottom, within the resized image.
        resample: PIL's filter.
    """
    left, top, right, bottom = box
    pixels = image.width * image.height + (right - left) * (bottom - top)
    if size[0] * max(size[1], image.height) <= ROOM * pixels:
        whole = _rows_then_columns(image, size, resample)
        return whole if box == (0, 0, *size) else whole.crop(box)
    above, below = _span(image.height, size[1], top, bottom, resample)  # the rows of the source that the box depends on
    seen = np.asarray(image.crop((0, above, image.width, below)))
    part = Image.new("RGB", (right - left, bottom - top))
    step = max(1, pixels // len(seen))  # columns at a time
    for first in range(left, right, step):
        last = min(first + step, right)
        # Ten thousand rows at a time, since the sums take at least four bytes per value.
        stripe = np.concatenate(
            [
                _resampled(seen[row : row + 10_000], 1, image.width, size[0], (first, last), 0, resample)
                for row in range(0, len(seen), 10_000)
            ]
        )
        if (top, bottom) == (0, size[1]):  # Pillow is faster here, and may need filters of a million taps
            done = Image.fromarray(stripe).resize((last - first, size[1]), resample)
        else:
            rows = _resampled(stripe, 0, image.height, size[1], (top, bottom), above, resample)
            done = Image.fromarray(rows)
        part.paste(done, (first - left, 0))
    return part


def _rows_then_columns(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    if image.width != size[0]:
        image = image.resize((size[0], image.height), resample)
    return image if image.height == size[1] else image.resize(size, resample)


# Pillow's arithmetic (Resample.c), for a part of one axis -----------------------------------------------------------


def _resampled(
    pixels: Array, axis: int, length: int, new: int, part: tuple[int, int], offset: int, resample: Image.Resampling
) -> npt.NDArray[np.uint8]:
    """Positions `part` of an axis that is resized from `length` to `new`.

    Args:
        pixels: uint8 [h, w, 3]; along the axis it begins at position `offset` of the source.
        axis: 0 for rows, 1 for columns.
        length: the source's length.
        new: the length of the whole result.
        part: the first position that is wanted, and the end.
        offset: how much of the source is left out before `pixels`.
        resample: PIL's filter.
    """
    if length == new:
        return np.ascontiguousarray(pixels.take(range(part[0] - offset, part[1] - offset), axis))
    centres = (np.arange(*part) + 0.5) * (length / new)
    if resample is Image.Resampling.NEAREST:
        return pixels.take(centres.astype(np.int64) - offset, axis).copy()
    first, weights = _weights(centres, length, length / new, resample)
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    total: Array = np.array(1 << 21, np.int32)  # one half, so that the shift below rounds
    for tap in range(weights.shape[1]):
        at = np.minimum(first + tap, length - 1) - offset
        values = pixels.take(np.minimum(at, pixels.shape[axis] - 1), axis).astype(np.int32)
        total = total + values * weights[:, tap].reshape(shape)
    rounded: npt.NDArray[np.uint8] = np.clip(total >> 22, 0, 255).astype(np.uint8)
    return rounded


def _weights(centres: Array, length: int, scale: float, resample: Image.Resampling) -> tuple[Array, Array]:
    """For each position the first source position that contributes, and the weights from there on, in units of 2⁻²²."""
    reach, curve = FILTERS[resample]
    spread = max(scale, 1.0)
    first = np.maximum((centres - reach * spread + 0.5).astype(np.int64), 0)
    end = np.minimum((centres + reach * spread + 0.5).astype(np.int64), length)
    taps = first[:, None] + np.arange(int((end - first).max()))
    weights = np.where(taps < end[:, None], curve((taps - centres[:, None] + 0.5) * (1.0 / spread)), 0.0)
    weights /= np.add.accumulate(weights, axis=1)[:, -1:]  # one after the other, as Pillow adds them up
    fixed = weights * (1 << 22)
    return first, np.trunc(fixed + np.copysign(0.5, fixed)).astype(np.int32)


def _span(length: int, new: int, start: int, stop: int, resample: Image.Resampling) -> tuple[int, int]:
    """The source positions that a part of an axis depends on."""
    if length == new:
        return start, stop
    scale = length / new
    reach = FILTERS[resample][0] * max(scale, 1.0) + 1
    return max(0, math.floor(start * scale - reach)), min(length, math.ceil(stop * scale + reach))


def _triangle(x: Array) -> Array:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: Array) -> Array:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: Array) -> Array:
    return np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0.0)


FILTERS: dict[Image.Resampling, tuple[float, Callable[[Array], Array]]] = {
    Image.Resampling.NEAREST: (0.5, _triangle),
    Image.Resampling.BILINEAR: (1.0, _triangle),
    Image.Resampling.BICUBIC: (2.0, _cubic),
    Image.Resampling.LANCZOS: (3.0, _lanczos),
}
