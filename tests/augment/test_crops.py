import random

import numpy as np
import pytest
from PIL import Image
from timm.data import transforms as timm_transforms
from torchvision import transforms

from convrun.augment.crops import (
    RandomCrop,
    RandomResizedCrop,
    evaluation_transform,
    largest_box,
    random_box,
    resample_of,
)
from convrun.augment.flips import HorizontalFlip

BICUBIC = Image.Resampling.BICUBIC
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@pytest.fixture
def rows_first(monkeypatch):
    """Pillow's resize in the order of its versions up to 12, for what torchvision calls."""
    once = Image.Image.resize

    def resize(image, size, resample=BICUBIC, *rest):
        return once(once(image, (size[0], image.height), resample, *rest), tuple(size), resample, *rest)

    monkeypatch.setattr(Image.Image, "resize", resize)


def timms_box(size, scale, ratio):
    image = Image.new("RGB", size)
    top, left, height, width = timm_transforms.RandomResizedCropAndInterpolation.get_params(image, scale, ratio)
    return left, top, left + width, top + height


@pytest.mark.parametrize("size", [(67, 53), (500, 375), (333, 501), (400, 20), (20, 400), (32, 32)])
@pytest.mark.parametrize("scale", [SCALE, (0.9, 1.0)])
def test_random_boxes_equal_timm(monkeypatch, size, scale):
    """From generators of one seed; where even the largest allowed box is too small, all end in the fall-back."""
    left, top, right, bottom = largest = largest_box(*size, RATIO)
    is_hopeless = (right - left) * (bottom - top) < scale[0] * size[0] * size[1]
    boxes = set()
    for seed in range(100):
        monkeypatch.setattr(timm_transforms, "random", random.Random(seed))
        box = random_box(*size, scale, RATIO, random.Random(seed))
        assert box == timms_box(size, scale, RATIO)
        boxes.add(box)
    assert (boxes == {largest}) == is_hopeless


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((90, 30), (25, 0, 65, 30)),  # 4/3 of the height, centred
        ((30, 90), (0, 25, 30, 65)),
        ((101, 100), (0, 0, 101, 100)),
    ],
)
def test_the_fall_back_is_the_largest_centred_box(size, box):
    assert largest_box(*size, RATIO) == box


def test_a_tiny_image_never_gives_an_empty_box():
    for seed in range(200):
        left, top, right, bottom = random_box(2, 1, SCALE, RATIO, random.Random(seed))
        assert left < right
        assert top < bottom


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "lanczos"])
@pytest.mark.usefixtures("rows_first")
def test_random_resized_crop_cuts_then_resizes(photo, interpolation):
    crop = RandomResizedCrop(32, SCALE, RATIO, resample_of(interpolation))
    left, top, right, bottom = random_box(*photo.size, SCALE, RATIO, random.Random(5))
    mode = transforms.InterpolationMode(interpolation)
    expected = transforms.functional.resized_crop(photo, top, left, bottom - top, right - left, [32, 32], mode)
    np.testing.assert_array_equal(np.asarray(crop(photo, random.Random(5))), np.asarray(expected))


def test_random_crop_is_a_window_of_the_padded_image(photo):
    image = photo.resize((32, 32))
    padded = np.pad(np.asarray(image), ((4, 4), (4, 4), (0, 0)))
    windows = {padded[y : y + 32, x : x + 32].tobytes(): (y, x) for y in range(9) for x in range(9)}
    crop = RandomCrop(32, padding=4)
    seen = {windows[crop(image, random.Random(seed)).tobytes()] for seed in range(2000)}
    # 81 places, alike: the chance that 2000 draws miss one is below 81·(80/81)^2000 < 1e-8.
    assert len(seen) == 81


def test_random_crop_first_brings_the_short_side_to_the_input_size(photo):
    crop = RandomCrop(32, padding=0)
    resized = np.asarray(transforms.Resize(32, transforms.InterpolationMode.BICUBIC)(photo))
    assert resized.shape == (32, 40, 3)
    windows = {resized[:, x : x + 32].tobytes() for x in range(9)}
    assert all(crop(photo, random.Random(seed)).tobytes() in windows for seed in range(20))


def test_flip_mirrors_with_its_probability(photo):
    mirrored = np.asarray(photo)[:, ::-1].tobytes()
    flips = [HorizontalFlip(0.3)(photo, random.Random(seed)).tobytes() for seed in range(1000)]
    assert set(flips) == {mirrored, photo.tobytes()}
    assert abs(flips.count(mirrored) - 300) < 5 * (1000 * 0.3 * 0.7) ** 0.5


@pytest.mark.parametrize("size", [(67, 53), (500, 375), (333, 501), (256, 256), (301, 257), (224, 999)])
@pytest.mark.parametrize(("input_size", "crop_ratio"), [(224, 0.875), (32, 1.0), (288, 0.95), (65, 0.9)])
@pytest.mark.usefixtures("rows_first")
def test_evaluation_equals_torchvision(photo, size, input_size, crop_ratio):
    image = photo.resize(size)
    theirs = transforms.Compose(
        [
            transforms.Resize(int(input_size / crop_ratio), transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(input_size),
        ]
    )(image)
    ours = evaluation_transform(input_size, crop_ratio, "bicubic")(image)
    assert ours.size == (input_size, input_size)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("size", [(500, 375), (333, 501), (384, 384)])
@pytest.mark.usefixtures("rows_first")
def test_without_a_crop_ratio_the_image_is_squashed(photo, size):
    image = photo.resize(size)
    theirs = transforms.Resize((384, 384), transforms.InterpolationMode.BICUBIC)(image)
    np.testing.assert_array_equal(np.asarray(evaluation_transform(384, None)(image)), np.asarray(theirs))


def test_an_image_of_the_input_size_is_taken_as_it_is(photo):
    image = photo.resize((32, 32))
    assert evaluation_transform(32, 1.0)(image).tobytes() == image.tobytes()


@pytest.mark.parametrize("crop_ratio", [0.0, 1.01, -1.0])
def test_a_crop_ratio_outside_0_to_1_is_refused(crop_ratio):
    with pytest.raises(ValueError, match="crop ratio"):
        evaluation_transform(224, crop_ratio)
