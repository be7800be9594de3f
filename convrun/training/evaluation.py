"""Evaluation: each image once, sums of loss × n and hits, one division at the end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Sized
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convrun.data.pipeline import EvalBatch
from convrun.distributed.group import Group
from convrun.training.faults.out_of_memory import fits
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


class EvaluationDoesNotFit(Exception):
    """A batch did not fit into the device's memory, here or in another process."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[EvalBatch],
    inputs: Callable[[Tensor], Tensor],
    precision: Precision,
    should_stop: Callable[[], bool] = lambda: False,
    splits: int = 1,
    group: Group | None = None,
    take_part: Callable[[], object] = lambda: None,
    fits: Callable[[Callable[[], object]], bool] = fits,
) -> Score:
    """Evaluates a model.

    Args:
        model: put into evaluation mode and back.
        batches: uint8 images with labels; with several processes each one's own, and `len` says how many at most.
        inputs: brings a batch to the device, normalised.
        precision: of the forward pass; losses are summed in float64.
        should_stop: asked before each batch; with several processes in each as often as in the one that has most.
        splits: parts in which a batch goes through the model; no figure depends on them.
        group: the processes that share the images; the score is that of all.
        take_part: called for each forward pass that another process may make and this one does not, where a model's
            passes are collective.
        fits: makes an attempt; whether memory suffices, in all processes.

    Raises:
        EvaluationStopped: `should_stop` said so; there is no score then.
        EvaluationDoesNotFit: in all processes, if memory does not suffice in one.
    """
    group = group or Group()
    sums = torch.zeros(4, dtype=torch.float64, device=precision.device)
    was_training = model.training

    def add(batch: EvalBatch | None) -> None:
        parts = batch.images.chunk(splits) if batch is not None else ()
        with precision.autocast():
            logits = [model(inputs(part)) for part in parts]
            for _ in range(splits - len(parts)):
                take_part()
        if batch is not None:
            labels = batch.labels.to(precision.device, non_blocking=True)
            sums.add_(_sums(torch.cat(logits).float(), labels))

    model.eval()
    try:
        # Closed here and not by the garbage collector, in which a second Ctrl-C would be lost.
        with contextlib.closing(_side_by_side(batches, group)) as rounds:
            for batch in rounds:
                if should_stop():
                    raise EvaluationStopped
                if not fits(partial(add, batch)):
                    raise EvaluationDoesNotFit
    finally:
        model.train(was_training)
    loss, top1, top5, images = group.add_up(sums).tolist()
    if not images:
        return Score(0.0, 0.0, float("nan"), 0)
    return Score(100 * top1 / images, 100 * top5 / images, loss / images, int(images))


def _side_by_side(batches: Iterable[EvalBatch], group: Group) -> Generator[EvalBatch | None]:
    """This process's batches, then None as often as others still have some: all go the same number of rounds."""
    if group.size == 1:
        yield from batches
        return
    rounds = max(group.from_all(len(cast(Sized, batches))))
    with contextlib.closing(_each(batches)) as own:
        for _ in range(rounds):
            yield next(own, None)


def _each(batches: Iterable[EvalBatch]) -> Generator[EvalBatch]:
    yield from batches


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of losses, hits, hits among the first five, images."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    parts = [loss.double(), hits[:, 0].sum().double(), hits.sum().double(), loss.new_tensor(len(labels)).double()]
    return torch.stack(parts)
