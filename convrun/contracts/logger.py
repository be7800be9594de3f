"""Loggers: where the rows of a run go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from convrun.contracts.kind import Kind

Row = Mapping[str, Any]


class Screen(Protocol):
    """Shows lines to the user, and the progress display."""

    def say(self, text: str) -> None:
        """One line for the user, also in train.log."""

    def show(self, row: Row) -> None:
        """Shows a row: as a line, or as new numbers in the progress display."""

    def start_progress(
        self, total_steps: int, steps_per_epoch: int, start_step: int, *, report: str, best_top1: float | None
    ) -> None:
        """Shows the run's progress from now on."""

    def stop_progress(self) -> None:
        """Removes the progress display."""


@dataclass(frozen=True)
class RunInfo:
    """What loggers and callbacks know of the run.

    Attributes:
        name: the recipe's name.
        folder: the run folder, which exists.
        recipe: the recipe as resolved.
        total_steps: optimizer steps of the whole run.
        steps_per_epoch: optimizer steps of one epoch.
        start_step: optimizer steps already done when this process started; 0 for a new run.
        screen: where a logger may show lines to the user.
        evaluated_step: the last step whose evaluation is done. A run that was stopped during an evaluation repeats it,
            so rows of evaluations after this step are dropped as well.
        report: the weights whose top-1 counts, `model` or `ema`.
        best_top1: their best top-1 so far, in percent; None if they have not been evaluated.
    """

    name: str
    folder: Path
    recipe: dict[str, Any]
    total_steps: int
    steps_per_epoch: int
    start_step: int
    screen: Screen
    evaluated_step: float = math.inf
    report: str = "model"
    best_top1: float | None = None


class Logger(Protocol):
    """The methods that convrun calls, on rank 0 only. A row is a line of metrics.jsonl."""

    def log(self, row: Row) -> None:
        """Writes one row; when this returns, a kill of the process should not lose it."""

    def flush(self) -> None:
        """Passes all rows to the kernel, before each checkpoint; raises RunFolderError if that fails.

        Files in the run folder are synced to the disk afterwards, beside training. A plugin may leave it out.
        """

    def close(self) -> None:
        """Called once when the run ends, however it ends."""


LOGGER = Kind(
    name="logger",
    module="convrun.components.loggers",
    section="logging.to",
    receives={"run": RunInfo},
    returns=Logger,
    rules=(
        "a run that is resumed after step n (`start_step`) logs step n + 1 next: rows of later steps are dropped "
        "first, so that a reader never sees a step twice",
        "a full disk does not end the run: rows wait in memory, and `flush` raises if they still cannot be written",
    ),
    is_list=True,
)
