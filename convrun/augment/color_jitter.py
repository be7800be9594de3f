"""Colour jitter: brightness, contrast, saturation and hue changed by random factors, in random order."""

from __future__ import annotations

import dataclasses
import random

from PIL import Image

from convrun.augment import operations


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Changes an image's colours; every draw comes from the generator that is passed.

    Attributes:
        brightness: factors are drawn from max(0, 1 - brightness)..1 + brightness; 0 is off.
        contrast: likewise.
        saturation: likewise.
        hue: turns are drawn from -hue..hue, as a share of the colour circle; 0 is off.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __call__(self, image: Image.Image, draws: random.Random) -> Image.Image:
        """The image with its colours changed."""
        ranges = [
            (operations.brightness, max(0.0, 1 - self.brightness), 1 + self.brightness),
            (operations.contrast, max(0.0, 1 - self.contrast), 1 + self.contrast),
            (operations.color, max(0.0, 1 - self.saturation), 1 + self.saturation),
            (operations.hue, -self.hue, self.hue),
        ]
        active = [(change, low, high) for change, low, high in ranges if low < high]
        for change, low, high in draws.sample(active, len(active)):
            image = change(image, draws.uniform(low, high))
        return image
