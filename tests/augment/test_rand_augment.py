import collections
import random

import numpy as np
import pytest
from PIL import Image
from timm.data import auto_augment as timm_ra

from convrun.augment.policy import parse_policy
from convrun.augment.rand_augment import INCREASING, PLAIN, RandAugment

FILL = (124, 116, 104)  # round(255 × ImageNet's mean)
BICUBIC = Image.Resampling.BICUBIC
# In timm's order, which is ours.
PLAIN_NAMES = dict(zip(PLAIN, timm_ra._RAND_TRANSFORMS, strict=True))
INCREASING_NAMES = dict(zip(INCREASING, timm_ra._RAND_INCREASING_TRANSFORMS, strict=True))
BOTH = [("inc0", name, theirs) for name, theirs in PLAIN_NAMES.items()] + [
    ("inc1", name, theirs) for name, theirs in INCREASING_NAMES.items()
]


def ours_of(policy):
    return RandAugment(parse_policy(policy), FILL, BICUBIC)


def timms_of(policy):
    return timm_ra.rand_augment_transform(policy, {"img_mean": FILL, "interpolation": BICUBIC})


class Recording(RandAugment):
    """Notes what would be done instead of doing it."""

    def apply(self, name, image, magnitude, draws):
        image.append((name, magnitude))
        return image


def recorded(policy, images):
    augment = Recording(parse_policy(policy), FILL, BICUBIC)
    return [augment([], random.Random(seed)) for seed in range(images)]


def recorded_by_timm(policy, images, monkeypatch):
    monkeypatch.setattr(timm_ra, "random", random.Random(1))
    state = np.random.get_state()
    np.random.seed(1)
    try:
        augment = timms_of(policy)
        for op in augment.ops:
            op.level_fn = lambda magnitude, hparams: (magnitude,)
            op.aug_fn = lambda image, magnitude, name=op.name, **look: [*image, (name, magnitude)]
        return [augment([]) for _ in range(images)]
    finally:
        np.random.set_state(state)


@pytest.mark.parametrize(("inc", "name", "theirs"), BOTH)
def test_every_operation_at_every_magnitude_equals_timm(photo, monkeypatch, inc, name, theirs):
    """From 0 to 15, as mmax15 allows, in steps of 0.1; timm draws its signs from a generator of the same seed."""
    image = photo.resize((23, 19))
    augment = ours_of(f"rand-{inc}")
    look = {"img_mean": FILL, "interpolation": BICUBIC, "magnitude_max": 15}
    for tenths in range(151):
        op = timm_ra.AugmentOp(theirs, 1.0, tenths / 10, look)
        monkeypatch.setattr(timm_ra, "random", random.Random(tenths))
        ours = augment.apply(name, image, tenths / 10, random.Random(tenths))
        assert ours.size == image.size
        try:
            expected = op(image).tobytes()
        except ValueError as error:  # PIL 13 refuses to keep 0 bits; older releases gave black
            assert name == "posterize"
            assert "bits must be" in str(error)
            expected = bytes(3 * 23 * 19)
        assert ours.tobytes() == expected, tenths


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m7-mstd101", "rand-m12-mmax15-mstd2-p0.7-inc1"])
def test_one_operation_draws_what_timm_draws(photo, monkeypatch, policy):
    """From generators of one seed: the chance to be skipped, the magnitude, the sign."""
    image = photo.resize((23, 19))
    augment, operations = ours_of(policy), timms_of(policy).ops
    for seed in range(40):
        monkeypatch.setattr(timm_ra, "random", random.Random(seed))
        ours = augment.maybe_apply("rotate", image, random.Random(seed))
        assert ours.tobytes() == operations[3](image).tobytes()


def test_operations_are_drawn_with_replacement_and_alike(assert_uniform):
    done = recorded("rand-n2-p1-m9-inc1", 6000)
    assert_uniform(collections.Counter(name for each in done for name, _ in each), 15)
    assert_uniform(collections.Counter((a[0], b[0]) for a, b in done), 15 * 15)


def test_frequencies_and_magnitudes_equal_timm(monkeypatch, assert_uniform, assert_same_distribution):
    policy = "rand-m9-mstd0.5-inc1"
    ours, theirs = recorded(policy, 6000), recorded_by_timm(policy, 6000, monkeypatch)
    assert_same_distribution([len(each) for each in ours], [len(each) for each in theirs])
    assert_same_distribution([m for each in ours for _, m in each], [m for each in theirs for _, m in each])
    order = {theirs: number for number, theirs in enumerate(INCREASING_NAMES.values())}
    position = {name: number for number, name in enumerate(INCREASING_NAMES)}
    assert_same_distribution(
        [position[name] for each in ours for name, _ in each],
        [order[name] for each in theirs for name, _ in each],
    )


def test_half_of_the_operations_are_applied():
    """Two draws of p 0.5 for each of 6000 images: 6000 ± 5 standard deviations of √(12000/4)."""
    applied = sum(len(each) for each in recorded("rand-m9-mstd0.5-inc1", 6000))
    assert abs(applied - 6000) < 5 * 3000**0.5


def test_magnitudes_are_clipped():
    magnitudes = [m for each in recorded("rand-m9-mstd0.5-inc1", 6000) for _, m in each]
    assert max(magnitudes) == 10
    # P(N(9, 0.5) > 10) = P(N(0, 1) > 2) = 0.02275
    share = sum(m == 10 for m in magnitudes) / len(magnitudes)
    assert abs(share - 0.02275) < 5 * (0.02275 / len(magnitudes)) ** 0.5
    assert max(m for each in recorded("rand-m9-mmax12-mstd3", 600) for _, m in each) == 12


def test_the_same_generator_gives_the_same_image(photo):
    augment = ours_of("rand-m9-mstd0.5-inc1-p1")
    images = [augment(photo, random.Random(seed)).tobytes() for seed in (3, 3, 4)]
    assert images[0] == images[1] != images[2]
