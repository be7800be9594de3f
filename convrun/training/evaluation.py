"""Evaluation: each image once, sums of loss × n and hits, one division at the end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Sized
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convrun.contracts.metrics import EvalRow, Weights
from convrun.data.pipeline import EvalBatch
from convrun.distributed.strategy import Strategy
from convrun.training.model import Inputs
from convrun.training.precision import Precision


@dataclasses.dataclass(frozen=True)
class Score:
    """What an evaluation found: accuracies in percent, the mean cross-entropy, and how many images were seen."""

    top1: float
    top5: float
    loss: float
    images: int

    def row(self, step: int, epoch: float, weights: Weights) -> EvalRow:
        """A line of metrics.jsonl."""
        return {
            "kind": "eval",
            "step": step,
            "epoch": epoch,
            "weights": weights,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "images": self.images,
        }


class EvaluationStopped(Exception):
    """A signal came in the midst of an evaluation; there is no score."""


def _once(attempt: Callable[[], None]) -> None:
    attempt()


class Evaluation:
    """The validation images, and how a model is evaluated on them; several ranks share the images.

    Args:
        batches: uint8 images with labels, of several ranks each one's own; `len` says how many batches at most.
        inputs: brings a batch to the device, normalised.
        precision: of the forward pass; losses are summed in float64.
        strategy: how the ranks hold the model.
        input_size: height and width of the images.
    """

    def __init__(
        self, batches: Iterable[EvalBatch], inputs: Inputs, precision: Precision, strategy: Strategy, input_size: int
    ) -> None:
        self.batches, self.inputs, self.precision = batches, inputs, precision
        self.strategy, self.input_size = strategy, input_size

    @torch.no_grad()
    def score(
        self,
        model: nn.Module,
        *,
        parts: int = 1,
        should_stop: Callable[[], bool] = lambda: False,
        passes: Callable[[Callable[[], None]], None] = _once,
    ) -> Score:
        """The score of a model, over all ranks; collective.

        Args:
            model: put into evaluation mode and back.
            parts: in which a batch goes through the model; no figure depends on them.
            should_stop: asked before each batch; on each rank as often as on the one that has most.
            passes: makes the forward passes of a batch.

        Raises:
            EvaluationStopped: `should_stop` said so.
        """
        sums = torch.zeros(4, dtype=torch.float64, device=self.precision.device)
        was_training = model.training
        model.eval()
        try:
            # Closed here and not by the garbage collector, in which a second Ctrl-C would be lost.
            with contextlib.closing(self._side_by_side()) as rounds:
                for batch in rounds:
                    if should_stop():
                        raise EvaluationStopped
                    passes(partial(self._add, model, batch, parts, sums))
        finally:
            model.train(was_training)
        # The only wait for the device, after the last batch.
        loss, top1, top5, images = self.strategy.group.add_up(sums).tolist()
        if not images:
            return Score(0.0, 0.0, float("nan"), 0)
        return Score(100 * top1 / images, 100 * top5 / images, loss / images, int(images))

    def _add(self, model: nn.Module, batch: EvalBatch | None, parts: int, sums: Tensor) -> None:
        """Adds what a batch comes to; None: this rank has none left, but others have."""
        images = batch.images.chunk(parts) if batch is not None else ()
        with self.precision.autocast():
            logits = [model(self.inputs(part)) for part in images]
            for _ in range(parts - len(images)):
                self.strategy.take_part(self.input_size)
        if batch is not None:
            labels = batch.labels.to(self.precision.device, non_blocking=True)
            sums.add_(_sums(torch.cat(logits).float(), labels))

    def _side_by_side(self) -> Generator[EvalBatch | None]:
        """This rank's batches, then None as often as others still have some: all go the same number of rounds."""
        group = self.strategy.group
        if group.size == 1:
            yield from self.batches
            return
        rounds = max(group.from_all(len(cast(Sized, self.batches))))
        with contextlib.closing(_each(self.batches)) as own:
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
