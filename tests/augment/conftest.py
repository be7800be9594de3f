"""A small photo-like image and the statistics that comparisons with timm need."""

import math
import statistics

import numpy as np
import pytest
from PIL import Image

# Each statistical check fails by chance once in a million seeds; the seeds are fixed, so it fails never or always.
CHANCE = 1e-6


@pytest.fixture(scope="session")
def photo():
    """Smooth colours with noise on top, short of black and white; an odd number of pixels each way."""
    noise = np.random.default_rng(0)
    coarse = Image.fromarray(noise.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((67, 53), Image.Resampling.BICUBIC), dtype=np.int64)
    return Image.fromarray(np.clip(smooth + noise.integers(-12, 13, smooth.shape), 15, 235).astype(np.uint8))


@pytest.fixture(scope="session")
def assert_uniform():
    """Pearson's test that counts come from equally likely classes."""

    def check(counts, classes):
        assert len(counts) == classes
        expected = sum(counts.values()) / classes
        assert sum((n - expected) ** 2 / expected for n in counts.values()) < chi_square_limit(classes - 1)

    return check


@pytest.fixture(scope="session")
def assert_same_distribution():
    """Kolmogorov and Smirnov's test that two samples come from one distribution (atoms only make it milder)."""

    def check(ours, theirs):
        a, b = np.sort(ours), np.sort(theirs)
        points = np.concatenate([a, b])
        gap = np.abs(np.searchsorted(a, points, "right") / len(a) - np.searchsorted(b, points, "right") / len(b)).max()
        assert gap < math.sqrt(-math.log(CHANCE / 2) / 2 * (1 / len(a) + 1 / len(b)))

    return check


def chi_square_limit(freedom):
    """What a χ² of so many degrees of freedom exceeds with probability CHANCE (Wilson and Hilferty, 1931)."""
    z = statistics.NormalDist().inv_cdf(1 - CHANCE)
    return freedom * (1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))) ** 3
