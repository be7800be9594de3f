"""Brings an image to the model's input size: by random crops for training, in a fixed way for evaluation."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

from PIL import Image

from convrun.augment.evaluation_geometry import short_side
from convrun.augment.resize import Box, resize, resized_part


def resample_of(interpolation: str) -> Image.Resampling:
    """PIL's filter of a name such as `bicubic`."""
    return Image.Resampling[interpolation.upper()]


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Cuts a random part out of an image and resizes it to a square (arXiv:1409.4842).

    Attributes:
        input_size: side of the result in pixels.
        scale: smallest and largest area of the part, as a share of the image.
        ratio: smallest and largest width / height of the part.
        resample: filter of the resize; PIL's filters widen with the reduction, so it does not alias.
    """

    input_size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    resample: Image.Resampling

    def __call__(self, image: Image.Image, draws: random.Random) -> Image.Image:
        """The part, resized. PIL's `resize(box=...)` would differ: its filter uses pixels beyond the box."""
        part = image.crop(random_box(image.width, image.height, self.scale, self.ratio, draws))
        return resize(part, (self.input_size, self.input_size), self.resample)


def random_box(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], draws: random.Random
) -> Box:
    """A box of random area and (log-uniform) aspect ratio at a random place: left, top, right, bottom.

    After ten boxes that do not fit, it is the largest centred box whose aspect ratio is allowed.
    """
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = draws.uniform(*scale) * (width * height)
        aspect = math.exp(draws.uniform(*log_ratio))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = draws.randint(0, height - box_height)
            left = draws.randint(0, width - box_width)
            return left, top, left + box_width, top + box_height
    return largest_box(width, height, ratio)


def largest_box(width: int, height: int, ratio: tuple[float, float]) -> Box:
    """The largest centred box whose width / height lies within `ratio`."""
    aspect = width / height
    box_width, box_height = width, height
    if aspect < ratio[0]:
        box_height = round(width / ratio[0])
    elif aspect > ratio[1]:
        box_width = round(height * ratio[1])
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Pads an image with black on each side and cuts a square out of it, as is usual for CIFAR (arXiv:1512.03385).

    Attributes:
        input_size: side of the square in pixels; an image whose short side differs is resized to it first.
        padding: black pixels on each side.
        resample: filter of that resize.
    """

    input_size: int
    padding: int
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def __call__(self, image: Image.Image, draws: random.Random) -> Image.Image:
        """The square. PIL fills a crop beyond the border with black, so nothing is padded first."""
        width, height = short_side_size(image, self.input_size)
        top = draws.randint(-self.padding, height + self.padding - self.input_size)
        left = draws.randint(-self.padding, width + self.padding - self.input_size)
        right, bottom = left + self.input_size, top + self.input_size
        within = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        part = resized_part(image, (width, height), within, self.resample)
        return part.crop((left - within[0], top - within[1], right - within[0], bottom - within[1]))


def short_side_size(image: Image.Image, length: int) -> tuple[int, int]:
    """Width and height of the image once its short side is `length` pixels long; the other is rounded down."""
    if min(image.size) == length:
        return image.size
    longer = int(length * max(image.size) / min(image.size))
    return (length, longer) if image.width <= image.height else (longer, length)


def centre_box(size: tuple[int, int], side: int) -> Box:
    """The middle square of an image at least that large; half pixels are rounded to even, as in torchvision."""
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return left, top, left + side, top + side


@dataclasses.dataclass(frozen=True)
class EvaluationTransform:
    """Brings an image to the input size without random draws; see `evaluation_transform`."""

    input_size: int
    crop_ratio: float | None
    resample: Image.Resampling

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image, input_size × input_size."""
        if self.crop_ratio is None:
            return resize(image, (self.input_size, self.input_size), self.resample)
        size = short_side_size(image, short_side(self.input_size, self.crop_ratio))
        return resized_part(image, size, centre_box(size, self.input_size), self.resample)


def evaluation_transform(
    input_size: int, crop_ratio: float | None, interpolation: str = "bicubic"
) -> Callable[[Image.Image], Image.Image]:
    """How images are brought to the input size for evaluation; `evaluation_text` says the same in words.

    Args:
        input_size: side of the result in pixels.
        crop_ratio: the short side becomes input_size / crop_ratio (rounded down), then the middle is cut out; None:
            the whole image is squashed into the square.
        interpolation: name of PIL's filter.

    Raises:
        ValueError: a ratio outside 0..1.
    """
    if crop_ratio is not None:
        short_side(input_size, crop_ratio)
    return EvaluationTransform(input_size, crop_ratio, resample_of(interpolation))
