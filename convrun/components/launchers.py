"""Launchers: where the processes of a run come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convrun.registry import register


@dataclass(frozen=True)
class Job:
    """What a launcher starts.

    Attributes:
        train: does the work of one process of the run; returns when the training has ended.
    """

    train: Callable[[], None]


@register("launcher", "local")
def local(job: Job) -> None:
    """Trains in this process, on this machine (convrun's own)."""
    job.train()
