"""The losses a recipe can name.

Label smoothing is done here and not where images are mixed. Smoothing maps a target t to t(1 - s) + s/K, which is
linear, so smoothing a mixture equals mixing smoothed targets: one key serves both, and every loss takes class indices
as well as soft targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convrun.contracts.loss import LabelSmoothing, Loss
from convrun.keys import Fraction
from convrun.registry import register

if TYPE_CHECKING:
    from torch import Tensor


@register("loss", "cross_entropy")
def cross_entropy(*, label_smoothing: LabelSmoothing = 0.0) -> Loss:
    """Cross-entropy with label smoothing (Szegedy et al., arXiv:1512.00567, section 7)."""
    from torch.nn import functional

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        logits = _in_full_precision(logits)
        if targets.is_floating_point():
            targets = targets.to(logits.dtype)
        return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)

    return loss


@register("loss", "soft_target_cross_entropy")
def soft_target_cross_entropy() -> Loss:
    """Cross-entropy with the targets as they are, never smoothed (timm's loss for mixup, arXiv:1710.09412)."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        logits = _in_full_precision(logits)
        return -(_as_distribution(targets, logits) * logits.log_softmax(dim=1)).sum(dim=1).mean()

    return loss


@register("loss", "binary_cross_entropy")
def binary_cross_entropy(
    *, label_smoothing: LabelSmoothing = 0.0, target_threshold: Fraction | None = None, sum_classes: bool = False
) -> Loss:
    """One sigmoid per class instead of a softmax (Wightman et al., arXiv:2110.00476).

    target_threshold: targets above it, after smoothing, become 1 and all others 0; null leaves them soft
    sum_classes: sum over the classes instead of their mean, which makes the loss K times larger
    """
    from torch.nn import functional

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        logits = _in_full_precision(logits)
        targets = _as_distribution(targets, logits)
        targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[1]
        if target_threshold is not None:
            targets = (targets > target_threshold).to(logits.dtype)
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return losses.sum(dim=1).mean() if sum_classes else losses.mean()

    return loss


def _in_full_precision(logits: Tensor) -> Tensor:
    """Logits in float32: bf16 and fp16 have 8 and 11 significant bits, too few to sum exponentials of 1,000 classes."""
    return logits.float() if logits.element_size() < 4 else logits


def _as_distribution(targets: Tensor, logits: Tensor) -> Tensor:
    from torch.nn import functional

    if not targets.is_floating_point():
        targets = functional.one_hot(targets, logits.shape[1])
    return targets.to(logits.dtype)
