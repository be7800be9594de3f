"""Augmentations: what they know of the run's images, and what they do to an image or to a micro-batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from convrun.contracts.kind import Kind

Interpolation = Literal["bicubic", "bilinear", "nearest", "lanczos"]


@dataclass(frozen=True)
class ImageFormat:
    """What augmentations know of the run's images.

    Attributes:
        input_size: side of the model's input in pixels.
        num_classes: classes of the data set.
        mean: per-channel mean (pixel values in 0..1) of the normalisation.
        std: per-channel standard deviation of the normalisation.
    """

    input_size: int
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


AUGMENTATION = Kind(
    name="augmentation",
    module="convrun.components.augmentations",
    section="augmentations",
    receives={"images": ImageFormat},
    returns="place='image': function(PIL image in RGB, random.Random) -> PIL image, in a loader worker; place='batch': "
    "function(float images [n, 3, h, w], targets [n] or [n, classes], convrun.randomness.Draws) -> (images, targets), "
    "on the device",
    rules=("it draws only from the generator it is passed; otherwise a resumed run differs from one without a stop",),
    is_list=True,
    required_meta={"place": "'image' or 'batch'"},
    optional_meta={
        "crops": "True: its result is input_size × input_size",
        "mixes": "True: it mixes the images of a micro-batch, which must hold at least two",
        "at_most_once": "True: a recipe may list it only once",
        "conflicts": "{other: why the two cannot both be listed}",
        "after": "names of augmentations that must be listed before it",
        "check": "function(**keys), without torch, that raises KeyProblem",
    },
)
