"""tests/golden/pillow12_resize.npz holds what Pillow 12.0.0 makes of noise: "WIDTHxHEIGHT WIDTHxHEIGHT FILTER"."""

import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convrun.augment import resize as module
from convrun.augment.crops import RandomCrop, evaluation_transform, resample_of
from convrun.augment.resize import resize, resized_part

GOLDEN = Path(__file__).parents[1] / "golden" / "pillow12_resize.npz"
FILTERS = ["nearest", "bilinear", "bicubic", "lanczos"]


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def cases():
    with np.load(GOLDEN) as stored:
        return list(stored.files)


def sizes_of(case):
    old, new, name = case.split()
    return tuple(map(int, old.split("x"))), tuple(map(int, new.split("x"))), Image.Resampling[name]


@pytest.mark.parametrize("case", cases())
def test_pixels_are_those_of_pillow_12(case):
    old, new, resample = sizes_of(case)
    seed = [of[:2] for of in map(sizes_of, cases()[::4])].index((old, new))
    with np.load(GOLDEN) as stored:
        np.testing.assert_array_equal(np.asarray(resize(noise(*old, seed), new, resample)), stored[case])


def test_there_are_cases_in_which_pillow_13_differs():
    assert len(cases()) == 32
    assert any(old[1] / new[1] > 4 * old[0] / new[0] for old, new, _ in map(sizes_of, cases()))


def whole(image, size, resample):
    """All rows, then all columns, by two calls of Pillow's."""
    return image.resize((size[0], image.height), resample).resize(size, resample)


# Of `nearest`, see below: Pillow adds the step up, and may take the neighbour where a centre lies between two pixels.
@pytest.mark.parametrize("interpolation", FILTERS[1:])
@pytest.mark.parametrize("old", [(2, 40), (40, 2), (1, 90), (3, 50), (50, 3), (60, 41), (7, 7)])
@pytest.mark.parametrize("length", [5, 16, 33])
def test_a_part_has_the_pixels_of_the_whole(interpolation, old, length, monkeypatch):
    monkeypatch.setattr(module, "ROOM", 0.01)  # so that never the whole is made
    image, resample = noise(*old), resample_of(interpolation)
    longer = int(length * max(old) / min(old))
    size = (length, longer) if old[0] <= old[1] else (longer, length)
    draws = random.Random(1)
    for _ in range(5):
        left, top = draws.randrange(size[0]), draws.randrange(size[1])
        box = left, top, draws.randint(left + 1, size[0]), draws.randint(top + 1, size[1])
        found, expected = resized_part(image, size, box, resample), whole(image, size, resample).crop(box)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_a_part_by_nearest_has_the_pixels_under_the_centres(monkeypatch):
    monkeypatch.setattr(module, "ROOM", 0.01)
    image, size, box = noise(2, 40), (16, 320), (3, 100, 14, 177)  # eight times each
    expected = np.asarray(image).repeat(8, 0).repeat(8, 1)[100:177, 3:14]
    assert np.array_equal(resized_part(image, size, box, Image.Resampling.NEAREST), expected)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("old", [(2, 3000), (1, 777), (300, 2), (5, 4000)])
def test_an_image_that_is_squashed_has_the_same_pixels_stripe_by_stripe(interpolation, old):
    image, resample = noise(*old), resample_of(interpolation)
    assert np.array_equal(resize(image, (48, 48), resample), whole(image, (48, 48), resample))


@pytest.mark.parametrize("size", [(2, 600), (600, 2), (3, 601)])
@pytest.mark.parametrize(("input_size", "crop_ratio"), [(64, 0.875), (32, 1.0), (65, None)])
def test_evaluation_of_a_strip_is_still_resize_then_crop(size, input_size, crop_ratio):
    image = noise(*size)
    if crop_ratio is None:
        expected = whole(image, (input_size, input_size), Image.Resampling.BICUBIC)
    else:
        length = int(input_size / crop_ratio)
        longer = int(length * max(size) / min(size))
        resized = whole(image, (length, longer) if size[0] < size[1] else (longer, length), Image.Resampling.BICUBIC)
        left, top = round((resized.width - input_size) / 2), round((resized.height - input_size) / 2)
        expected = resized.crop((left, top, left + input_size, top + input_size))
    np.testing.assert_array_equal(np.asarray(evaluation_transform(input_size, crop_ratio)(image)), np.asarray(expected))


class Peak:
    """The bytes that Python and numpy held at most; what Pillow holds is not among them."""

    def __enter__(self):
        tracemalloc.start()
        return self

    def __exit__(self, *_):
        self.bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


@pytest.mark.parametrize("size", [(2, 30_000), (30_000, 2), (1, 100_000)])
@pytest.mark.parametrize("way", ["evaluation", "squashed", "random_crop"])
def test_a_strip_costs_a_few_times_its_own_size(size, way, monkeypatch):
    made = []
    new, core_resize = Image.new, Image.Image.resize
    monkeypatch.setattr(Image, "new", lambda mode, size, *rest: (made.append(size), new(mode, size, *rest))[1])
    monkeypatch.setattr(
        Image.Image, "resize", lambda im, size, *rest: (made.append(size), core_resize(im, size, *rest))[1]
    )
    image = noise(*size)
    ways = {
        "evaluation": evaluation_transform(224, 0.875),
        "squashed": evaluation_transform(224, None),
        "random_crop": lambda image: RandomCrop(224, padding=4)(image, random.Random(0)),
    }
    with Peak() as peak:
        assert ways[way](image).size == (224, 224)
    pixels = size[0] * size[1] + 224 * 224
    assert max(width * height for width, height in made) <= module.ROOM * pixels
    assert peak.bytes < 40 * module.ROOM * pixels
