"""Random erasing (arXiv:1708.04896) of normalised images, on the device."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from convrun.randomness import Draws

Mode = Literal["pixel", "const", "rand"]
Rectangle = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Erases rectangles of images; whether and where comes from `draws.host`, the noise from `draws.device`.

    Attributes:
        probability: chance that an image is erased.
        mode: `pixel`: normal noise; `rand`: one normal value per channel; `const`: 0, which is the mean colour.
        count: rectangles per image; their areas are divided by it.
        area: smallest and largest area, as a share of the image, before that division.
        aspect: smallest and largest height / width.
    """

    probability: float
    mode: Mode
    count: int
    area: tuple[float, float]
    aspect: tuple[float, float]

    def __call__(self, images: torch.Tensor, targets: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """The images [n, 3, h, w] with rectangles erased, in a new tensor if there are any; the targets as they are."""
        height, width = images.shape[-2:]
        chosen = [self.rectangles(height, width, draws.host) for _ in range(len(images))]
        if not any(chosen):
            return images, targets
        images = images.clone()
        # A few small writes per image, queued without waiting for the device, because the positions are known here.
        for image, rectangles in zip(images, chosen, strict=True):
            for top, left, bottom, right in rectangles:
                image[:, top:bottom, left:right] = self._filling(image, bottom - top, right - left, draws.device)
        return images, targets

    def rectangles(self, height: int, width: int, draws: random.Random) -> list[Rectangle]:
        """The rectangles (top, left, bottom, right) to erase in one image; often there are none."""
        if draws.random() >= self.probability:
            return []
        found = [self._rectangle(height, width, draws) for _ in range(self.count)]
        return [rectangle for rectangle in found if rectangle is not None]

    def _rectangle(self, height: int, width: int, draws: random.Random) -> Rectangle | None:
        """The first of ten random rectangles that is smaller than the image both ways."""
        log_aspect = math.log(self.aspect[0]), math.log(self.aspect[1])
        for _ in range(10):
            area = draws.uniform(*self.area) * (height * width) / self.count
            aspect = math.exp(draws.uniform(*log_aspect))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                top = draws.randint(0, height - h)
                left = draws.randint(0, width - w)
                return top, left, top + h, left + w
        return None

    def _filling(self, image: torch.Tensor, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
        channels = len(image)
        if self.mode == "const":
            return image.new_zeros(channels, 1, 1)
        size = (channels, height, width) if self.mode == "pixel" else (channels, 1, 1)
        return torch.randn(size, dtype=image.dtype, device=image.device, generator=generator)
