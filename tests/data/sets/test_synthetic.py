from __future__ import annotations

import hashlib

import numpy as np

from convrun.data.sets.synthetic import SyntheticImages


def pixels(images: SyntheticImages) -> np.ndarray:
    return np.stack([np.asarray(images.read(i)[0], dtype=float).ravel() for i in range(len(images))])


def test_images_depend_on_split_and_index_alone() -> None:
    one, other = (SyntheticImages("train", 10, 3, 8) for _ in range(2))
    backwards = np.stack([np.asarray(other.read(i)[0], dtype=float).ravel() for i in reversed(range(10))])[::-1]
    assert np.array_equal(pixels(one), backwards)
    assert len(np.unique(pixels(one), axis=0)) == 10
    assert not np.array_equal(pixels(one), pixels(SyntheticImages("val", 10, 3, 8)))


def test_bytes_are_the_same_everywhere() -> None:
    digest = hashlib.sha256(SyntheticImages("train", 10, 3, 8).read(7)[0].tobytes()).hexdigest()
    assert digest.startswith("d27e2699a2e4d0ba")


def test_classes_are_balanced_and_named() -> None:
    images = SyntheticImages("train", 7, 3, 8)
    assert [images.read(i)[1] for i in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert images.class_names == ("class 0", "class 1", "class 2")
    pixels_of, _ = images.read(0)
    assert (pixels_of.dtype, pixels_of.shape) == (np.uint8, (8, 8, 3))


def test_the_nearest_training_mean_tells_the_class() -> None:
    train, val = SyntheticImages("train", 200, 20, 16), SyntheticImages("val", 100, 20, 16)
    means = pixels(train).reshape(10, 20, -1).mean(0)
    guesses = np.linalg.norm(pixels(val)[:, None] - means, axis=2).argmin(1)
    assert (guesses == np.arange(100) % 20).mean() > 0.95
