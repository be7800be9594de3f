import random

import pytest
import torch
from timm.data import random_erasing as timm_erasing

from convrun.augment.erasing import RandomErasing
from convrun.randomness import Draws

AREA, ASPECT = (0.02, 1 / 3), (0.3, 1 / 0.3)
TARGETS = torch.arange(4)


def draws_of(seed):
    return Draws(random.Random(seed), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (57, 21)])
def test_rectangles_equal_timm(monkeypatch, count, size):
    """From generators of one seed; constant colour, so that the noise does not matter."""
    ours = RandomErasing(0.5, "const", count, AREA, ASPECT)
    theirs = timm_erasing.RandomErasing(0.5, mode="const", min_count=count, max_count=count, device="cpu")
    erased = 0
    for seed in range(60):
        monkeypatch.setattr(timm_erasing, "random", random.Random(seed))
        images, targets = ours(torch.ones(4, 3, *size), TARGETS, draws_of(seed))
        assert torch.equal(images, theirs(torch.ones(4, 3, *size)))
        assert targets is TARGETS
        erased += sum(bool((image == 0).any()) for image in images)
    # 240 images at p 0.5: 120 ± 5 standard deviations
    assert abs(erased - 120) < 5 * 60**0.5


def test_pixel_noise_is_standard_normal_and_differs_everywhere():
    images, _ = RandomErasing(1.0, "pixel", 1, AREA, ASPECT)(torch.zeros(64, 3, 48, 48), TARGETS, draws_of(0))
    noise = images[images != 0]
    assert len(noise.unique()) > 0.99 * len(noise)
    assert abs(noise.mean()) < 5 / len(noise) ** 0.5
    assert abs(noise.var() - 1) < 5 * (2 / len(noise)) ** 0.5


def test_rand_is_one_colour_a_rectangle():
    images, _ = RandomErasing(1.0, "rand", 1, AREA, ASPECT)(torch.zeros(64, 3, 24, 24), TARGETS, draws_of(0))
    # background and one colour in each channel of each image
    assert all(len(channel.unique()) == 2 for image in images for channel in image)
    colours = torch.stack([channel[channel != 0][0] for image in images for channel in image])
    assert len(colours.unique()) == 64 * 3
    assert abs(colours.mean()) < 5 / 192**0.5


def test_the_images_that_are_passed_stay_as_they_are():
    images = torch.zeros(4, 3, 16, 16)
    result, _ = RandomErasing(1.0, "pixel", 1, AREA, ASPECT)(images, TARGETS, draws_of(1))
    assert result.any()
    assert not images.any()


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_the_same_generators_give_the_same_images(mode):
    erase = RandomErasing(1.0, mode, 1, AREA, ASPECT)
    first, again, other = (erase(torch.ones(4, 3, 16, 16), TARGETS, draws_of(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_type_and_memory_format_stay():
    images = torch.ones(4, 3, 16, 16, dtype=torch.float16).to(memory_format=torch.channels_last)
    result, _ = RandomErasing(1.0, "pixel", 1, AREA, ASPECT)(images, TARGETS, draws_of(1))
    assert result.dtype == torch.float16
    assert result.is_contiguous(memory_format=torch.channels_last)
