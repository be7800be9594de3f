"""The steps since the last logged row: loss and gradient norms of each, their mean loss, their speed, the spikes.

What a step's figures are is known on the device when the step is queued, and on the host only after a wait. So they are
written into a tensor there, one row a step, and read all at once where the loop waits anyway.
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

from convrun.training.recording.loss_spikes import LossSpikes

MOST_UNREAD = 1000  # steps; 26 groups of parameters make that 0.2 MB
MOST_REMEMBERED = 20


@dataclasses.dataclass(frozen=True)
class StepFigures:
    """What is known of one optimizer step.

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


class Window:
    """Collects the steps' figures on the device, so that a step needs no wait for them.

    Args:
        device: where the model trains.
        groups: how many parameter groups there are.
        is_clipped: whether gradients are clipped; rows tell their norm then.
    """

    def __init__(self, device: torch.device, groups: int, is_clipped: bool) -> None:
        self._unread = torch.zeros(MOST_UNREAD, 2 + groups, dtype=torch.float64, device=device)
        self._heads: list[tuple[int, float, float]] = []
        self._is_clipped = is_clipped
        self._spikes = LossSpikes()
        self.remembered: deque[StepFigures] = deque(maxlen=MOST_REMEMBERED)
        self.lr = 0.0
        self._timed_steps = 0
        self._since = time.perf_counter()
        self._begin()

    def _begin(self) -> None:
        self.steps = self.skipped_steps = 0
        self._loss = 0.0
        self._spike: tuple[int, float] | None = None

    @property
    def loss(self) -> Tensor:
        """The loss of the step under way, on the device; a view, in float64."""
        return self._unread[len(self._heads), 0]

    def add_loss(self, share: Tensor) -> None:
        """Adds a micro-batch's share of its batch's mean loss."""
        self.loss.add_(share)

    def forget_step(self) -> None:
        """The step under way begins anew."""
        self.loss.zero_()

    def end_step(self, step: int, norms: Tensor, loss_scale: float) -> None:
        """Counts a step. `norms` [1 + groups] holds the gradient's norm and that of each group, on the device."""
        self._unread[len(self._heads), 1:] = norms
        self._heads.append((step, self.lr, loss_scale))
        self.steps += 1
        self._timed_steps += 1

    @property
    def is_full(self) -> bool:
        """Whether the figures must be read before the next step."""
        return len(self._heads) == MOST_UNREAD

    def read(self) -> list[StepFigures]:
        """The figures of the steps since the last reading; waits for the device."""
        numbers = self._unread[: len(self._heads)].tolist()
        found = [StepFigures(*head, row[0], row[1], row[2:]) for head, row in zip(self._heads, numbers, strict=True)]
        self._unread[: len(self._heads)] = 0
        self._heads = []
        return found

    def count(self, figures: StepFigures) -> None:
        """Takes a step into the row's mean."""
        self.remembered.append(figures)
        self._loss += figures.loss
        if self._spikes.is_spike(figures.loss) and (self._spike is None or figures.loss > self._spike[1]):
            self._spike = figures.step, figures.loss

    def leave_out(self, figures: StepFigures) -> None:
        """A step that was not applied: it is in no mean."""
        self.remembered.append(figures)
        self.skipped_steps += 1

    def row(self, batch_size: int, wait_seconds: float) -> dict[str, Any]:
        """What a row says of the window, once all its steps are read."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        counted = self.steps - self.skipped_steps
        row: dict[str, Any] = {"loss": self._loss / counted if counted else math.nan, "lr": self.lr}
        if self._is_clipped:
            row["grad_norm"] = self.remembered[-1].grad_norm
        if self.skipped_steps:
            row["skipped_steps"] = self.skipped_steps
        if self._spike is not None:
            row["spike_step"], row["spike_loss"] = self._spike
        row["images_per_second"] = round(self._timed_steps * batch_size / seconds, 2)
        row["data_wait"] = round(min(wait_seconds / seconds, 1.0), 4)
        return row

    def reset(self) -> None:
        """Begins the next window."""
        self._begin()
        self._timed_steps = 0
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside counts for no step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        """The unfinished window, so that the next row is the same after a resume."""
        assert not self._heads, "a window is saved when all its steps are read"
        return {
            "loss": self._loss,
            "steps": self.steps,
            "skipped_steps": self.skipped_steps,
            "spike": self._spike,
            "spikes": dataclasses.asdict(self._spikes),
            # As text: in it a NaN equals a NaN, so that two states can be compared.
            "remembered": json.dumps([dataclasses.asdict(figures) for figures in self.remembered]),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on with a saved window."""
        self._loss, self.steps, self.skipped_steps = saved["loss"], saved["steps"], saved["skipped_steps"]
        self._spike = saved["spike"]
        self._spikes = LossSpikes(**saved["spikes"])
        self.remembered.clear()
        self.remembered.extend(StepFigures(**figures) for figures in json.loads(saved["remembered"]))
