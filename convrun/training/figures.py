"""The steps since the last row: loss and gradient norms of each, their mean loss, their speed, the spikes.

A step's figures are known on the device once the step is queued, and on the host only after a wait. So they are written
into a tensor there, one row a step, and read all at once where the loop waits anyway.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from convrun.contracts.metrics import TrainRow, train_row
from convrun.training.loss_spikes import LossSpikes

MOST_UNREAD = 1000  # steps; 26 groups of parameters make that 0.2 MB
MOST_REMEMBERED = 20


@dataclasses.dataclass(frozen=True)
class Gradient:
    """What the backward passes of a step have left in the parameters' `.grad`, summed over the ranks, not applied.

    Attributes:
        step: number of the step, from 1.
        loss: float64 [], mean over the batch; on the device.
        norms: float32 [1 + groups], norm of the whole gradient, before clipping, and of each parameter group's; on the
            device.
        loss_scale: by which fp16 multiplied the loss; 1 in other arithmetic.
    """

    step: int
    loss: Tensor
    norms: Tensor
    loss_scale: float


@dataclasses.dataclass(frozen=True)
class StepFigures:
    """What is known of one optimizer step, on the host.

    Attributes:
        step: its number, from 1.
        lr: its learning rate, before a group's share.
        loss_scale: by which fp16 multiplied the loss; 1 in other arithmetic.
        loss: mean over the batch.
        grad_norm: of the batch's gradient, before clipping; not finite if one number in the gradient is not.
        group_norms: the same for each parameter group.
    """

    step: int
    lr: float
    loss_scale: float
    loss: float
    grad_norm: float
    group_norms: list[float]


class Figures:
    """Collects the steps' figures on the device, so that a step needs no wait for them.

    Args:
        device: where the model trains.
        groups: how many parameter groups there are.
        is_clipped: whether gradients are clipped; rows tell their norm then.

    Attributes:
        steps: since the last row.
        remembered: the last steps that were read.
    """

    def __init__(self, device: torch.device, groups: int, is_clipped: bool) -> None:
        self._numbers = torch.zeros(MOST_UNREAD, 2 + groups, dtype=torch.float64, device=device)
        self._unread: list[tuple[int, float, float]] = []  # step, lr and loss scale, known on the host
        self._is_clipped = is_clipped
        self._spikes = LossSpikes()
        self.remembered: deque[StepFigures] = deque(maxlen=MOST_REMEMBERED)
        self._lr = 0.0
        self._overflow_steps = 0  # of the run, up to the last row
        self._timed_steps = 0
        self._since = time.perf_counter()
        self._begin()

    def _begin(self) -> None:
        self.steps = self._nonfinite_steps = 0
        self._loss = 0.0
        self._spike: tuple[int, float] | None = None

    def add(self, gradient: Gradient, lr: float) -> None:
        """Notes a step. Two small copies on the device; the host does not wait."""
        row = self._numbers[len(self._unread)]
        row[0], row[1:] = gradient.loss, gradient.norms
        self._unread.append((gradient.step, lr, gradient.loss_scale))
        self._lr = lr
        self.steps += 1
        self._timed_steps += 1

    @property
    def is_full(self) -> bool:
        """Whether the figures must be read before the next step."""
        return len(self._unread) == MOST_UNREAD

    def read(self) -> list[StepFigures]:
        """The figures of the steps since the last reading; waits for the device."""
        numbers = self._numbers[: len(self._unread)].tolist()  # all in one copy, for each is a wait
        found = [
            StepFigures(*known, loss, of_all, of_groups)
            for known, (loss, of_all, *of_groups) in zip(self._unread, numbers, strict=True)
        ]
        self._unread = []
        return found

    def count(self, figures: StepFigures) -> None:
        """Takes a step into the row's mean."""
        self.remembered.append(figures)
        self._loss += figures.loss
        if self._spikes.is_spike(figures.loss) and (self._spike is None or figures.loss > self._spike[1]):
            self._spike = figures.step, figures.loss

    def count_skipped(self, figures: StepFigures) -> None:
        """Takes note of a step that was skipped: it is in no mean."""
        self.remembered.append(figures)
        self._nonfinite_steps += 1

    def take_row(
        self, *, step: int, epoch: float, batch_size: int, wait_seconds: float, overflow_steps: int
    ) -> TrainRow:
        """A row about the steps since the last, once all are read; the next row begins.

        Args:
            step: optimizer steps done.
            epoch: passes over the data so far.
            batch_size: images of one step.
            wait_seconds: how long the loop waited for images.
            overflow_steps: steps of the run so far that fp16's loss scaling skipped.
        """
        seconds = max(time.perf_counter() - self._since, 1e-9)
        counted = self.steps - self._nonfinite_steps
        row = train_row(
            step=step,
            epoch=epoch,
            loss=self._loss / counted if counted else math.nan,
            lr=self._lr,
            grad_norm=self.remembered[-1].grad_norm if self._is_clipped else None,
            nonfinite_steps=self._nonfinite_steps,
            overflow_steps=overflow_steps - self._overflow_steps,
            spike=self._spike,
            images_per_second=self._timed_steps * batch_size / seconds,
            data_wait=min(wait_seconds / seconds, 1.0),
        )
        self._begin()
        self._overflow_steps = overflow_steps
        self._timed_steps = 0
        self._since = time.perf_counter()
        return row

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside counts for no step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        """The unfinished row, so that it is the same after a resume."""
        assert not self._unread, "figures are saved when all steps are read"
        return {
            "loss": self._loss,
            "steps": self.steps,
            "nonfinite_steps": self._nonfinite_steps,
            "overflow_steps": self._overflow_steps,
            "spike": self._spike,
            "spikes": dataclasses.asdict(self._spikes),
            # As text: in it a NaN equals a NaN, so that two states can be compared.
            "remembered": json.dumps([dataclasses.asdict(figures) for figures in self.remembered]),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on with a saved row."""
        self._loss, self.steps, self._nonfinite_steps = saved["loss"], saved["steps"], saved["nonfinite_steps"]
        self._overflow_steps = saved["overflow_steps"]
        self._spike = saved["spike"]
        self._spikes = LossSpikes(**saved["spikes"])
        self.remembered.clear()
        self.remembered.extend(StepFigures(**figures) for figures in json.loads(saved["remembered"]))
