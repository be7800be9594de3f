"""RandAugment (arXiv:1909.13719) as timm defines it, with which ConvNeXt was trained; torchvision's differs."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

from PIL import Image

from convrun.augment import operations
from convrun.augment.operations import Colour, Resample
from convrun.augment.policy import FULL_MAGNITUDE, RandAugmentPolicy


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation, and how its argument follows from a magnitude.

    Attributes:
        apply: a function of `convrun.augment.operations`.
        argument: magnitude -> its argument, drawing a sign where it has one; None: it takes no argument.
        is_warp: whether it moves pixels, and so takes a fill colour and a resampling filter.
    """

    apply: Callable[..., Image.Image]
    argument: Callable[[float, random.Random], float] | None = None
    is_warp: bool = False


def _strength(magnitude: float) -> float:
    return magnitude / FULL_MAGNITUDE


def _either_sign(value: float, draws: random.Random) -> float:
    return -value if draws.random() > 0.5 else value


def _angle(magnitude: float, draws: random.Random) -> float:
    return _either_sign(_strength(magnitude) * 30, draws)


def _slope(magnitude: float, draws: random.Random) -> float:
    return _either_sign(_strength(magnitude) * 0.3, draws)


def _shift(magnitude: float, draws: random.Random) -> float:
    return _either_sign(_strength(magnitude) * 0.45, draws)


def _added(magnitude: float, draws: random.Random) -> int:
    return min(128, int(_strength(magnitude) * 110))


def _bits(magnitude: float, draws: random.Random) -> int:
    return int(_strength(magnitude) * 4)


def _bits_falling(magnitude: float, draws: random.Random) -> int:
    return 4 - _bits(magnitude, draws)


def _threshold(magnitude: float, draws: random.Random) -> int:
    return min(256, int(_strength(magnitude) * 256))


def _threshold_falling(magnitude: float, draws: random.Random) -> int:
    return 256 - _threshold(magnitude, draws)


def _factor(magnitude: float, draws: random.Random) -> float:
    return _strength(magnitude) * 1.8 + 0.1


def _factor_leaving_one(magnitude: float, draws: random.Random) -> float:
    return max(0.1, 1 + _either_sign(_strength(magnitude) * 0.9, draws))


def _translate_x(image: Image.Image, share: float, fill: Colour, resample: Resample) -> Image.Image:
    return operations.translate_x(image, share * image.width, fill, resample)


def _translate_y(image: Image.Image, share: float, fill: Colour, resample: Resample) -> Image.Image:
    return operations.translate_y(image, share * image.height, fill, resample)


PLAIN = {
    "auto_contrast": Operation(operations.auto_contrast),
    "equalize": Operation(operations.equalize),
    "invert": Operation(operations.invert),
    "rotate": Operation(operations.rotate, _angle, is_warp=True),
    "posterize": Operation(operations.posterize, _bits),
    "solarize": Operation(operations.solarize, _threshold),
    "solarize_add": Operation(operations.solarize_add, _added),
    "color": Operation(operations.color, _factor),
    "contrast": Operation(operations.contrast, _factor),
    "brightness": Operation(operations.brightness, _factor),
    "sharpness": Operation(operations.sharpness, _factor),
    "shear_x": Operation(operations.shear_x, _slope, is_warp=True),
    "shear_y": Operation(operations.shear_y, _slope, is_warp=True),
    "translate_x": Operation(_translate_x, _shift, is_warp=True),
    "translate_y": Operation(_translate_y, _shift, is_warp=True),
}
# The same fifteen, with arguments reversed where the plain operations get milder as the magnitude grows.
INCREASING = PLAIN | {
    "posterize": Operation(operations.posterize, _bits_falling),
    "solarize": Operation(operations.solarize, _threshold_falling),
    "color": Operation(operations.color, _factor_leaving_one),
    "contrast": Operation(operations.contrast, _factor_leaving_one),
    "brightness": Operation(operations.brightness, _factor_leaving_one),
    "sharpness": Operation(operations.sharpness, _factor_leaving_one),
}


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Applies a policy to an image; every draw comes from the generator that is passed.

    Attributes:
        policy: what was parsed from the policy text.
        fill: colour of the gaps that warps leave.
        resample: filter of the warps.
    """

    policy: RandAugmentPolicy
    fill: Colour
    resample: Resample

    def __call__(self, image: Image.Image, draws: random.Random) -> Image.Image:
        """The image after `policy.count` operations, drawn with replacement."""
        names = list(INCREASING if self.policy.is_increasing else PLAIN)
        for name in draws.choices(names, k=self.policy.count):
            image = self.maybe_apply(name, image, draws)
        return image

    def maybe_apply(self, name: str, image: Image.Image, draws: random.Random) -> Image.Image:
        """The image after one operation, which the policy's probability may skip."""
        if self.policy.probability < 1 and draws.random() > self.policy.probability:
            return image
        return self.apply(name, image, self.magnitude(draws), draws)

    def magnitude(self, draws: random.Random) -> float:
        """One magnitude, clipped to 0..`policy.magnitude_max`."""
        value: float = self.policy.magnitude
        if math.isinf(self.policy.magnitude_std):
            value = draws.uniform(0, value)
        elif self.policy.magnitude_std > 0:
            value = draws.gauss(value, self.policy.magnitude_std)
        return max(0.0, min(value, self.policy.magnitude_max))

    def apply(self, name: str, image: Image.Image, magnitude: float, draws: random.Random) -> Image.Image:
        """The image after one operation at a magnitude; draws at most a sign."""
        operation = (INCREASING if self.policy.is_increasing else PLAIN)[name]
        look = {"fill": self.fill, "resample": self.resample} if operation.is_warp else {}
        arguments = () if operation.argument is None else (operation.argument(magnitude, draws),)
        return operation.apply(image, *arguments, **look)
