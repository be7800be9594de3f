"""TrivialAugment Wide (arXiv:2103.10158): one operation per image, at a magnitude drawn from 31 bins."""

from __future__ import annotations

import dataclasses
import random

from PIL import Image

from convrun.augment import operations

BINS = 31
# The value of the last bin: an offset from 1 for enhancements, a slope, pixels, or degrees. Bin 0 changes nothing.
ENHANCEMENTS = {
    "brightness": (operations.brightness, 0.99),
    "color": (operations.color, 0.99),
    "contrast": (operations.contrast, 0.99),
    "sharpness": (operations.sharpness, 0.99),
}
WARPS = {
    "shear_x": (operations.shear_x, 0.99),
    "shear_y": (operations.shear_y, 0.99),
    "translate_x": (operations.translate_x, 32.0),
    "translate_y": (operations.translate_y, 32.0),
    "rotate": (operations.rotate, 135.0),
}
WITHOUT_ARGUMENT = {"auto_contrast": operations.auto_contrast, "equalize": operations.equalize}
NAMES = ("identity", *WARPS, *ENHANCEMENTS, *WITHOUT_ARGUMENT, "posterize", "solarize")
_FILL = (0, 0, 0)  # the gaps of warps stay black, as torchvision leaves them


@dataclasses.dataclass(frozen=True)
class TrivialAugment:
    """Applies one operation to an image; every draw comes from the generator that is passed.

    Attributes:
        resample: filter of the operations that move pixels.
    """

    resample: operations.Resample

    def __call__(self, image: Image.Image, draws: random.Random) -> Image.Image:
        """The image after one operation, drawn with its bin and its sign."""
        name = draws.choice(NAMES)
        return self.apply(name, image, draws.randrange(BINS), draws.random() < 0.5)

    def apply(self, name: str, image: Image.Image, strength: int, is_negative: bool) -> Image.Image:
        """The image after the operation `name` at bin `strength` (0..30); only warps and enhancements have a sign."""
        sign = -1 if is_negative else 1
        if name in WARPS:
            warp, largest = WARPS[name]
            return warp(image, _warp_argument(name, sign * _share_of(largest, strength)), _FILL, self.resample)
        if name in ENHANCEMENTS:
            enhance, largest = ENHANCEMENTS[name]
            return enhance(image, 1 + sign * _share_of(largest, strength))
        if name == "posterize":
            return operations.posterize(image, 8 - round(_share_of(6, strength)))
        if name == "solarize":
            return operations.solarize(image, _share_of(255, BINS - 1 - strength))
        return image if name == "identity" else WITHOUT_ARGUMENT[name](image)


def _share_of(largest: float, strength: int) -> float:
    # Multiplies first, so that whole numbers stay exact: 255 · 22 / 30 is the threshold 187.
    return largest * strength / (BINS - 1)


def _warp_argument(name: str, magnitude: float) -> float:
    # A positive magnitude moves right or down by whole pixels; for `operations` that is a negative number of pixels.
    return -int(magnitude) if name.startswith("translate") else magnitude
