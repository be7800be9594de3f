"""How an image is brought to the model's input size for evaluation, in numbers and in words.

Without torch and PIL, for the plan and the checks; `convrun.augment.crops.evaluation_transform` does the work.
"""

from __future__ import annotations


def default_crop_ratio(input_size: int) -> float | None:
    """The crop ratio of the released ConvNeXt evaluation (arXiv:2201.03545) for an input size in pixels.

    Small images (CIFAR) are taken whole; at 384 and above None: the whole image is squashed into the square.
    """
    if input_size <= 32:
        return 1.0
    return 0.875 if input_size < 384 else None


def short_side(input_size: int, crop_ratio: float) -> int:
    """The length in pixels the short side gets before the centre crop.

    Raises:
        ValueError: a ratio outside 0..1; above 1 the crop would not fit into the image.
    """
    if not 0 < crop_ratio <= 1:
        raise ValueError(f"a crop ratio must be above 0 and at most 1, got {crop_ratio}")
    return int(input_size / crop_ratio)


def evaluation_text(input_size: int, crop_ratio: float | None, interpolation: str = "bicubic") -> str:
    """What the evaluation does to an image, in words; `crop_ratio` as for `evaluation_transform`."""
    if crop_ratio is None:
        return f"resize to {input_size}x{input_size} ({interpolation}), no crop"
    length = short_side(input_size, crop_ratio)
    return f"resize the short side to {length} ({interpolation}), centre crop {input_size}"
