import random

import numpy as np
import pytest
import torch
from timm.data import mixup as timm_mixup
from torch.nn import functional as F

from convrun.augment.mixing import MixupCutmix, cutmix, cutmix_box, kept_share, mixed_targets, mixup, soft_targets
from convrun.randomness import Draws


def draws_of(seed):
    return Draws(random.Random(seed), torch.Generator().manual_seed(seed))


def images_of(n=4, size=(20, 28)):
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def numpy_seed():
    """Seeds NumPy's global generator, which timm draws from."""
    state = np.random.get_state()
    yield np.random.seed
    np.random.set_state(state)


def timms_mix(monkeypatch, images, targets, lam, use_cutmix, smoothing=0.0):
    mix = timm_mixup.Mixup(0.8, 1.0, num_classes=10, label_smoothing=smoothing)
    monkeypatch.setattr(mix, "_params_per_batch", lambda: (lam, use_cutmix))
    return mix(images.clone(), targets)


@pytest.mark.parametrize("lam", [0.0, 0.123, 0.5, 0.987])
def test_mixup_equals_timm_bit_for_bit(monkeypatch, lam):
    images, targets = images_of(), torch.tensor([3, 1, 1, 9])
    theirs, their_targets = timms_mix(monkeypatch, images, targets, lam, use_cutmix=False)
    assert torch.equal(mixup(images, lam), theirs)
    assert torch.equal(mixed_targets(targets, lam, 10), their_targets)


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_equals_timm_bit_for_bit(monkeypatch, numpy_seed, seed):
    images, targets = images_of(), torch.tensor([3, 1, 1, 9])
    lam = random.Random(seed).random()
    numpy_seed(seed)
    theirs, their_targets = timms_mix(monkeypatch, images, targets, lam, use_cutmix=True)
    numpy_seed(seed)
    centre_y, centre_x = np.random.randint(0, 20), np.random.randint(0, 28)
    box = cutmix_box(20, 28, lam, centre_y, centre_x)
    assert torch.equal(cutmix(images, box), theirs)
    assert torch.equal(mixed_targets(targets, kept_share(20, 28, box), 10), their_targets)


def test_smoothing_in_the_loss_equals_timms_smoothed_targets():
    """Trap 4: off value s/K, on value 1-s+s/K, mixed by λ."""
    targets, lam = torch.tensor([3, 1, 1, 9]), 0.3
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(1))
    smoothed = timm_mixup.mixup_target(targets, 10, lam, smoothing=0.1)
    expected = -(smoothed * logits.log_softmax(1)).sum(1).mean()
    ours = F.cross_entropy(logits, mixed_targets(targets, lam, 10), label_smoothing=0.1)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("mix", [lambda x: mixup(x, 0.3), lambda x: cutmix(x, (2, 3, 11, 17))])
def test_the_images_that_are_passed_stay_as_they_are(mix):
    images = images_of()
    mixed = mix(images)
    assert torch.equal(images, images_of())
    assert not torch.equal(mixed, images)


def test_an_odd_micro_batch_mixes_its_middle_image_with_itself():
    images = images_of(3)
    torch.testing.assert_close(mixup(images, 0.3)[1], images[1])
    torch.testing.assert_close(mixup(images, 0.3)[0], 0.3 * images[0] + 0.7 * images[2])
    mixed = cutmix(images, (0, 0, 5, 28))
    assert torch.equal(mixed[2], torch.cat([images[0][:, :5], images[2][:, 5:]], 1))
    assert mixed_targets(torch.tensor([0, 1, 2]), 0.25, 3).tolist() == [[0.25, 0, 0.75], [0, 1, 0], [0.75, 0, 0.25]]


def test_soft_targets_are_mixed_as_they_are():
    rows = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert soft_targets(rows, 2) is rows
    torch.testing.assert_close(mixed_targets(rows, 0.5, 2), torch.tensor([[0.55, 0.45], [0.55, 0.45]]))


def test_targets_are_mixed_by_the_share_of_pixels():
    """Image i all of value i: the mean of a mixed image tells the share of each, which its target must state."""
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 20, 28)
    seen = set()
    for seed in range(40):
        mix = MixupCutmix(2, 0.8, 1.0, 1.0, 0.5)
        mixed, targets = mix(images, torch.tensor([0, 1]), draws_of(seed))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1])
        torch.testing.assert_close(targets.sum(1), torch.ones(2))
        seen.add(len(mixed[0].unique()) == 2)
    assert seen == {True, False}


def test_an_unmixed_batch_keeps_its_images_and_gets_one_hot_targets():
    mix = MixupCutmix(10, 0.8, 1.0, 0.25, 0.5)
    images, targets = images_of(), torch.tensor([3, 1, 1, 9])
    results = [mix(images, targets, draws_of(seed)) for seed in range(400)]
    same = [soft for mixed, soft in results if mixed is images]
    assert all(torch.equal(soft, F.one_hot(targets, 10).float()) for soft in same)
    assert abs(len(same) - 300) < 5 * (400 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize("alphas", [(0.8, 1.0), (0.8, 0.0), (0.0, 1.0)])
def test_shares_are_distributed_as_timms(numpy_seed, assert_same_distribution, alphas):
    mix = MixupCutmix(10, *alphas, 1.0, 0.5)
    ours = [mix.draw(32, 32, random.Random(seed)) for seed in range(4000)]
    timm_mix = timm_mixup.Mixup(*alphas, num_classes=10)
    numpy_seed(1)
    theirs = []
    for _ in range(4000):
        lam, use_cutmix = timm_mix._params_per_batch()
        if use_cutmix:
            _, lam = timm_mixup.cutmix_bbox_and_lam((4, 3, 32, 32), lam)
        theirs.append((lam, use_cutmix))
    assert_same_distribution([lam for lam, _ in ours], [lam for lam, _ in theirs])
    boxes = sum(box is not None for _, box in ours)
    if 0 in alphas:
        assert boxes == (4000 if alphas[0] == 0 else 0)
    else:
        assert abs(boxes - 2000) < 5 * 1000**0.5


def test_the_same_generators_give_the_same_mix():
    mix = MixupCutmix(10, 0.8, 1.0, 1.0, 0.5)
    first, again, other = (mix(images_of(), torch.tensor([3, 1, 1, 9]), draws_of(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
