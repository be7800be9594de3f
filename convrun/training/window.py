"""The steps since the last logged row: their mean loss, their speed, the share of time spent waiting for data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class Window:
    """Sums losses on the device, so that a step needs no wait for it."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.steps = 0
        self.lr = 0.0
        self.grad_norm: Tensor | None = None
        self._timed_steps = 0
        self._since = time.perf_counter()

    def add_loss(self, share: Tensor) -> None:
        """Adds a micro-batch's share of its batch's mean loss."""
        self.loss += share

    def end_step(self) -> None:
        """Counts a step."""
        self.steps += 1
        self._timed_steps += 1

    def mean_loss(self) -> float:
        """Mean of the steps' losses; waits for the device. 0 if there were none."""
        return self.loss.item() / self.steps if self.steps else 0.0

    def row(self, batch_size: int, wait_seconds: float) -> dict[str, Any]:
        """What a row says of the window."""
        loss = self.mean_loss()
        seconds = max(time.perf_counter() - self._since, 1e-9)
        row = {"loss": loss, "lr": self.lr}
        if self.grad_norm is not None:
            row["grad_norm"] = self.grad_norm.item()
        speed = {
            "images_per_second": round(self._timed_steps * batch_size / seconds, 2),
            "data_wait": round(min(wait_seconds / seconds, 1.0), 4),
        }
        return row | speed

    def reset(self) -> None:
        """Begins the next window."""
        self.loss.zero_()
        self.steps = self._timed_steps = 0
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
        return {"loss": self.loss.clone(), "steps": self.steps}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on with a saved window."""
        self.loss.copy_(saved["loss"])
        self.steps = saved["steps"]
