import collections
import random

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, TrivialAugmentWide
from torchvision.transforms.autoaugment import _apply_op

from convrun.augment.trivial_augment import BINS, NAMES, TrivialAugment

SPACE = TrivialAugmentWide()._augmentation_space(BINS)
THEIRS = {name: "".join(part.capitalize() for part in name.split("_")) for name in NAMES}


class Recording(TrivialAugment):
    """Notes what would be done instead of doing it."""

    def apply(self, name, image, strength, is_negative):
        return name, strength, is_negative


def test_the_operations_are_torchvisions():
    assert set(THEIRS.values()) == set(SPACE)


@pytest.mark.parametrize("name", NAMES)
def test_every_bin_equals_torchvision(photo, name):
    image = photo.resize((41, 37))
    augment = TrivialAugment(Image.Resampling.NEAREST)
    magnitudes, has_sign = SPACE[THEIRS[name]]
    for strength in range(BINS):
        for is_negative in (False, True):
            # torchvision's bins are float32, where half of 32 pixels is 15.999999 and so 15; the paper's 16 is ours.
            # Every bin is a decimal of at most three places, but for thirds of a pixel, which are cut off anyway.
            magnitude = round(float(magnitudes[strength]), 5) if magnitudes.ndim else 0.0
            magnitude *= -1 if has_sign and is_negative else 1
            expected = _apply_op(image, THEIRS[name], magnitude, InterpolationMode.NEAREST, None)
            ours = augment.apply(name, image, strength, is_negative)
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected), f"{name} at {strength}")


def test_operation_bin_and_sign_are_drawn_alike(assert_uniform):
    augment = Recording(Image.Resampling.NEAREST)
    drawn = [augment(None, random.Random(seed)) for seed in range(6000)]
    for part, classes in enumerate((14, 31, 2)):
        assert_uniform(collections.Counter(each[part] for each in drawn), classes)


def test_the_same_generator_gives_the_same_image(photo):
    augment = TrivialAugment(Image.Resampling.NEAREST)
    once, twice = ([augment(photo, random.Random(seed)).tobytes() for seed in range(20)] for _ in range(2))
    assert once == twice
    assert len(set(once)) > 10
