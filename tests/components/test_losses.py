import pytest
import torch
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy

from convrun.components.losses import binary_cross_entropy, cross_entropy, soft_target_cross_entropy

CLASSES = 5


@pytest.fixture
def logits():
    return torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


@pytest.fixture
def indices():
    return torch.tensor([0, 3, 3, 4])


@pytest.fixture
def soft(indices):
    hard = torch.nn.functional.one_hot(indices, CLASSES).double()
    return 0.7 * hard + 0.3 * hard.flip(0)


def smoothed(targets, smoothing):
    """Off value s/K, on value 1 - s + s/K, mixed linearly (Szegedy et al., section 7)."""
    return targets * (1 - smoothing) + smoothing / CLASSES


def expected_cross_entropy(logits, targets):
    return -(targets * logits.log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_soft_targets_and_of_indices_is_one_arithmetic(logits, indices, soft, smoothing):
    loss = cross_entropy(label_smoothing=smoothing)
    hard = torch.nn.functional.one_hot(indices, CLASSES).double()
    torch.testing.assert_close(loss(logits, indices), expected_cross_entropy(logits, smoothed(hard, smoothing)))
    torch.testing.assert_close(loss(logits, hard), loss(logits, indices))
    torch.testing.assert_close(loss(logits, soft), expected_cross_entropy(logits, smoothed(soft, smoothing)))


def test_smoothing_a_mixture_is_mixing_what_is_smoothed(logits, indices):
    hard = torch.nn.functional.one_hot(indices, CLASSES).double()
    mixed_after = 0.7 * smoothed(hard, 0.1) + 0.3 * smoothed(hard.flip(0), 0.1)
    mixed_before = cross_entropy(label_smoothing=0.1)(logits, 0.7 * hard + 0.3 * hard.flip(0))
    torch.testing.assert_close(mixed_before, expected_cross_entropy(logits, mixed_after))


def test_soft_target_cross_entropy_is_timms_and_takes_indices(logits, indices, soft):
    loss = soft_target_cross_entropy()
    torch.testing.assert_close(loss(logits, soft), SoftTargetCrossEntropy()(logits, soft))
    torch.testing.assert_close(loss(logits, indices), torch.nn.functional.cross_entropy(logits, indices))


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("sum_classes", [False, True])
def test_binary_cross_entropy_is_timms(logits, indices, soft, threshold, sum_classes):
    ours = binary_cross_entropy(label_smoothing=0.1, target_threshold=threshold, sum_classes=sum_classes)
    timms = BinaryCrossEntropy(smoothing=0.1, target_threshold=threshold, sum_classes=sum_classes)
    torch.testing.assert_close(ours(logits, indices), timms(logits, indices))
    # timm's loss leaves soft targets alone because timm's mixup has smoothed them already.
    torch.testing.assert_close(ours(logits, soft), timms(logits, smoothed(soft, 0.1)))


@pytest.mark.parametrize("build", [cross_entropy, soft_target_cross_entropy, binary_cross_entropy])
def test_half_precision_logits_are_summed_in_float32(build, logits, indices, soft):
    half = logits.bfloat16()
    for targets in (indices, soft):
        value = build()(half, targets)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, build()(half.float(), targets))
