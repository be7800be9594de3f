"""How a run ended."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: the run folder.
        top1: the best reported top-1 in percent; None if nothing was evaluated.
        step: optimizer steps done.
        was_finished: there was nothing left to do.
        stopped_because: why a callback ended it, if one did.
    """

    folder: Path
    top1: float | None
    step: int
    was_finished: bool = False
    stopped_because: str = ""
