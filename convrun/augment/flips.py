"""Mirroring an image."""

from __future__ import annotations

import dataclasses
import random

from PIL import Image


@dataclasses.dataclass(frozen=True)
class HorizontalFlip:
    """Swaps left and right with a probability."""

    probability: float

    def __call__(self, image: Image.Image, draws: random.Random) -> Image.Image:
        """The image or its mirror image."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws.random() < self.probability else image
