"""The augmentations a recipe can name. Importing this is cheap: what touches pixels is imported when it is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from convrun.augment.policy import parse_policy
from convrun.contracts.augmentation import ImageFormat, Interpolation
from convrun.errors import KeyProblem
from convrun.keys import Limits, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from convrun.registry import register

if TYPE_CHECKING:
    import random

    import torch
    from PIL import Image

    from convrun.randomness import Draws

    PerImage = Callable[[Image.Image, random.Random], Image.Image]
    PerBatch = Callable[[torch.Tensor, torch.Tensor, Draws], tuple[torch.Tensor, torch.Tensor]]

WarpInterpolation = Literal["bicubic", "bilinear", "nearest"]
Chance = Annotated[float, Limits(gt=0, le=1)]
Share = Annotated[float, Limits(gt=0, le=1)]
PartialShare = Annotated[float, Limits(gt=0, lt=1)]
Turn = Annotated[float, Limits(ge=0, le=0.5)]
Spread = Annotated[NonNegativeFloat, "x draws the factor from max(0, 1 - x)..1 + x; 0 is off"]

_TWO_CROPS = "both bring the image to the input size; keep one"
_JITTER = "RandAugment replaces colour jitter in the released pipeline, so colour jitter would have no effect"
_TWO_POLICIES = "each is a whole augmentation policy, tuned to be used alone; keep one"


def _check_order(key: str, pair: tuple[float, float]) -> None:
    if pair[0] > pair[1]:
        raise KeyProblem(
            key, f"the first value, {pair[0]:g}, is above the second, {pair[1]:g}", f"write [{pair[1]:g}, {pair[0]:g}]"
        )


def _check_resized_crop(*, scale: tuple[float, float], ratio: tuple[float, float], **_: Any) -> None:
    _check_order("scale", scale)
    _check_order("ratio", ratio)


@register(
    "augmentation",
    "random_resized_crop",
    place="image",
    crops=True,
    at_most_once=True,
    conflicts={"random_crop": _TWO_CROPS},
    check=_check_resized_crop,
)
def random_resized_crop(
    images: ImageFormat,
    *,
    scale: tuple[Share, Share] = (0.08, 1.0),
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3),
    interpolation: Interpolation = "bicubic",
) -> PerImage:
    """A random part of the image, resized to the input size (Inception's crop, arXiv:1409.4842).

    scale: smallest and largest area of the part, as a share of the image's area (0..1)
    ratio: smallest and largest width / height of the part; its logarithm is drawn uniformly
    interpolation: PIL's filter for the resize, which does not alias
    """
    _check_resized_crop(scale=scale, ratio=ratio)
    from convrun.augment.crops import RandomResizedCrop, resample_of

    return RandomResizedCrop(images.input_size, scale, ratio, resample_of(interpolation))


@register(
    "augmentation",
    "random_crop",
    place="image",
    crops=True,
    at_most_once=True,
    conflicts={"random_resized_crop": _TWO_CROPS},
)
def random_crop(images: ImageFormat, *, padding: NonNegativeInt = 4) -> PerImage:
    """A random square of the image with a black margin, for small images such as CIFAR's (arXiv:1512.03385).

    padding: width of the margin on each side in pixels; an image whose short side is not the input size is first
        resized (bicubic) to it
    """
    from convrun.augment.crops import RandomCrop

    return RandomCrop(images.input_size, padding)


@register("augmentation", "horizontal_flip", place="image", at_most_once=True)
def horizontal_flip(images: ImageFormat, *, probability: Chance = 0.5) -> PerImage:
    """Swaps left and right (AlexNet, doi:10.1145/3065386).

    probability: chance that an image is flipped (0..1)
    """
    from convrun.augment.flips import HorizontalFlip

    return HorizontalFlip(probability)


def _check_rand_augment(*, policy: str, **_: Any) -> None:
    parse_policy(policy)


@register(
    "augmentation",
    "rand_augment",
    place="image",
    at_most_once=True,
    conflicts={"color_jitter": _JITTER, "trivial_augment": _TWO_POLICIES},
    check=_check_rand_augment,
)
def rand_augment(
    images: ImageFormat, *, policy: str = "rand-m9-mstd0.5-inc1", interpolation: WarpInterpolation = "bicubic"
) -> PerImage:
    """RandAugment (arXiv:1909.13719) in timm's form, which ConvNeXt was trained with: n of 15 operations per image.

    policy: rand-m9-mstd0.5-inc1: m magnitude (10 = full), mstd its standard deviation (above 100: uniform in 0..m),
        mmax its bound (10), n operations per image (2), p probability of each (0.5), inc1 severity grows with magnitude
    interpolation: filter of rotation, shear and translation
    """
    parsed = parse_policy(policy)
    from convrun.augment.crops import resample_of
    from convrun.augment.rand_augment import RandAugment

    red, green, blue = (round(255 * mean) for mean in images.mean)
    return RandAugment(parsed, (red, green, blue), resample_of(interpolation))


@register(
    "augmentation", "trivial_augment", place="image", at_most_once=True, conflicts={"rand_augment": _TWO_POLICIES}
)
def trivial_augment(images: ImageFormat, *, interpolation: WarpInterpolation = "nearest") -> PerImage:
    """TrivialAugment Wide (arXiv:2103.10158): one of 14 operations per image, at a random magnitude.

    interpolation: filter of rotation and shear
    """
    from convrun.augment.crops import resample_of
    from convrun.augment.trivial_augment import TrivialAugment

    return TrivialAugment(resample_of(interpolation))


def _check_color_jitter(*, brightness: float, contrast: float, saturation: float, hue: float, **_: Any) -> None:
    if not any((brightness, contrast, saturation, hue)):
        raise KeyProblem(None, "color_jitter with every key at 0 has no effect", "set one, or remove the entry")


@register(
    "augmentation",
    "color_jitter",
    place="image",
    at_most_once=True,
    conflicts={"rand_augment": _JITTER},
    check=_check_color_jitter,
)
def color_jitter(
    images: ImageFormat,
    *,
    brightness: Spread = 0.4,
    contrast: Spread = 0.4,
    saturation: Spread = 0.4,
    hue: Turn = 0.0,
) -> PerImage:
    """Random changes of colour, in random order (after AlexNet's, doi:10.1145/3065386; torchvision's ranges).

    hue: x draws the turn from -x..x, in turns of the colour circle (0..0.5); 0 is off
    """
    _check_color_jitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
    from convrun.augment.color_jitter import ColorJitter

    return ColorJitter(brightness, contrast, saturation, hue)


def _check_erasing(*, area: tuple[float, float], aspect: tuple[float, float], **_: Any) -> None:
    _check_order("area", area)
    _check_order("aspect", aspect)


@register("augmentation", "random_erasing", place="batch", at_most_once=True, check=_check_erasing)
def random_erasing(
    images: ImageFormat,
    *,
    probability: Chance = 0.25,
    mode: Literal["pixel", "const", "rand"] = "pixel",
    count: PositiveInt = 1,
    area: tuple[PartialShare, PartialShare] = (0.02, 1 / 3),
    aspect: tuple[PositiveFloat, PositiveFloat] = (0.3, 1 / 0.3),
) -> PerBatch:
    """Erases a random rectangle of normalised images (arXiv:1708.04896, timm's form).

    probability: chance that an image is erased (0..1)
    mode: pixel: normal noise; rand: one normal value per channel; const: 0, the mean colour
    count: rectangles per image, each of area / count
    area: smallest and largest erased area, as a share of the image's area (0..1)
    aspect: smallest and largest height / width of the rectangle; its logarithm is drawn uniformly
    """
    _check_erasing(area=area, aspect=aspect)
    from convrun.augment.erasing import RandomErasing

    return RandomErasing(probability, mode, count, area, aspect)


def _check_mixing(*, mixup_alpha: float, cutmix_alpha: float, switch_probability: float, **_: Any) -> None:
    if mixup_alpha == cutmix_alpha == 0:
        raise KeyProblem(
            None, "mixup_alpha and cutmix_alpha are both 0, so nothing is mixed", "set one, or remove the entry"
        )
    if 0 in (mixup_alpha, cutmix_alpha) and switch_probability != 0.5:
        off, only = ("mixup_alpha", "CutMix") if mixup_alpha == 0 else ("cutmix_alpha", "Mixup")
        raise KeyProblem(
            "switch_probability",
            f"has no effect: {off} is 0, so there is only {only}",
            f"remove it, or set {off} above 0",
        )


@register(
    "augmentation",
    "mixup_cutmix",
    place="batch",
    at_most_once=True,
    mixes=True,
    after=("random_erasing",),
    check=_check_mixing,
)
def mixup_cutmix(
    images: ImageFormat,
    *,
    mixup_alpha: NonNegativeFloat = 0.8,
    cutmix_alpha: NonNegativeFloat = 1.0,
    probability: Chance = 1.0,
    switch_probability: PartialShare = 0.5,
) -> PerBatch:
    """Mixes each micro-batch with itself in reverse order by Mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899).

    mixup_alpha: Mixup's λ is drawn from Beta(alpha, alpha), once per micro-batch; 0 leaves only CutMix
    cutmix_alpha: CutMix's λ is drawn from Beta(alpha, alpha), then set to the box's true area; 0 leaves only Mixup
    probability: chance that a micro-batch is mixed (0..1)
    switch_probability: chance of CutMix rather than Mixup where both are on (above 0, below 1)
    """
    _check_mixing(mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha, switch_probability=switch_probability)
    from convrun.augment.mixing import MixupCutmix

    return MixupCutmix(images.num_classes, mixup_alpha, cutmix_alpha, probability, switch_probability)
