"""Evaluation: each image once, sums of loss × n and hits, one division at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convrun.data.feed import EvalBatch
from convrun.training.precision import Precision


@dataclasses.dataclass(frozen=True)
class Score:
    """What an evaluation found: accuracies in percent, the mean cross-entropy, and how many images were seen."""

    top1: float
    top5: float
    loss: float
    images: int

    def row(self, step: int, epoch: float, weights: str) -> dict[str, Any]:
        """A line of metrics.jsonl."""
        return {"kind": "eval", "step": step, "epoch": epoch, "weights": weights, **dataclasses.asdict(self)}


class EvaluationStopped(Exception):
    """A signal came in the midst of an evaluation."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[EvalBatch],
    inputs: Callable[[Tensor], Tensor],
    precision: Precision,
    should_stop: Callable[[], bool] = lambda: False,
) -> Score:
    """Evaluates a model.

    Args:
        model: put into evaluation mode and back.
        batches: uint8 images with labels.
        inputs: brings a batch to the device, normalised.
        precision: of the forward pass; losses are summed in float64.
        should_stop: asked before each batch.

    Raises:
        EvaluationStopped: `should_stop` said so; there is no score then.
    """
    sums = torch.zeros(4, dtype=torch.float64, device=precision.device)
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            if should_stop():
                raise EvaluationStopped
            labels = batch.labels.to(precision.device, non_blocking=True)
            with precision.autocast():
                logits = model(inputs(batch.images))
            sums += _sums(logits.float(), labels)
    finally:
        model.train(was_training)
    loss, top1, top5, images = sums.tolist()
    if not images:
        return Score(0.0, 0.0, float("nan"), 0)
    return Score(100 * top1 / images, 100 * top5 / images, loss / images, int(images))


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of losses, hits, hits among the first five, images."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    parts = [loss.double(), hits[:, 0].sum().double(), hits.sum().double(), loss.new_tensor(len(labels)).double()]
    return torch.stack(parts)
