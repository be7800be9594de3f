import random

import pytest
from torchvision.transforms import functional as F

from convrun.augment import color_jitter, operations
from convrun.augment.color_jitter import ColorJitter


@pytest.fixture
def changes(monkeypatch):
    """What a jitter does, noted instead of done."""
    done = []
    for name in ("brightness", "contrast", "color", "hue"):
        monkeypatch.setattr(
            color_jitter.operations, name, lambda image, factor, name=name: done.append((name, factor)) or image
        )
    return done


@pytest.mark.parametrize(
    ("jitter", "name", "low", "high"),
    [
        (ColorJitter(0.4, 0, 0, 0), "brightness", 0.6, 1.4),
        (ColorJitter(0, 1.5, 0, 0), "contrast", 0.0, 2.5),
        (ColorJitter(0, 0, 0.2, 0), "color", 0.8, 1.2),
        (ColorJitter(0, 0, 0, 0.1), "hue", -0.1, 0.1),
    ],
)
def test_factors_fill_torchvisions_range(photo, changes, jitter, name, low, high):
    for seed in range(500):
        jitter(photo, random.Random(seed))
    assert [each[0] for each in changes] == [name] * 500
    # The least of 500 uniform draws lies above a twentieth of the range with probability 0.95^500 < 1e-11.
    edge = (high - low) / 20
    assert low <= min(f for _, f in changes) < low + edge
    assert high - edge < max(f for _, f in changes) <= high


def test_the_order_is_random(photo, changes):
    for seed in range(300):
        ColorJitter(0.4, 0.4, 0.4, 0.1)(photo, random.Random(seed))
    orders = {tuple(name for name, _ in changes[i : i + 4]) for i in range(0, 1200, 4)}
    # 24 orders; 24·(23/24)^300 < 1e-4 is the chance to miss one.
    assert len(orders) == 24


def test_changes_equal_torchvision(photo):
    assert operations.brightness(photo, 1.3).tobytes() == F.adjust_brightness(photo, 1.3).tobytes()
    assert operations.contrast(photo, 1.3).tobytes() == F.adjust_contrast(photo, 1.3).tobytes()
    assert operations.color(photo, 0.7).tobytes() == F.adjust_saturation(photo, 0.7).tobytes()
