"""A process beside rank 0: it trains its share and writes nothing but its own log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

from convrun.contracts.logger import RunInfo
from convrun.data.skipped import SkippedImage
from convrun.distributed.meeting.rank_log import print_to_log
from convrun.process.device import device_text
from convrun.training.faults.non_finite import Fault
from convrun.training.session import Session
from convrun.training.trainer import Trainer
from convrun.training.trainer_state import weights_of


class Follower(Session):
    """What rank 0 writes down, the others leave to it; what they meet, they tell it."""

    def begin(self, changes: list[tuple[str, Any, Any]], notes: Sequence[str]) -> None:
        """Waits for rank 0, which makes the folder a run's, then prints to a log of its own."""
        self.group.wait()
        print_to_log(self.folder.path, self.group.world)
        how = f"goes on after step {self.step}" if self.step else "starts"
        world = self.group.world
        self.say(f"rank {world.rank} of {world.size} on {world.host} {how} on {device_text(self.machine)}")

    def open_loggers(self, info: RunInfo) -> None:
        """Rank 0 has them."""

    def note_skipped(self, images: Iterable[SkippedImage]) -> None:
        """Keeps them until all ranks tell each other."""
        self.unshared += images

    def end_training(self, trainer: Trainer) -> None:
        """Tells the last of what it has met, and gives its share of the state once more if rank 0 asks for it."""
        self.share_skipped()
        if self.plan.is_sharded and self.group.from_first(self.checkpointer.is_to_try_again):
            trainer.state_dict()

    def leave_results(self, trainer: Trainer) -> None:
        """Rank 0 has the same weights, or gathers them."""
        if self.plan.is_sharded:
            weights_of(trainer)

    def note_end(self, error: BaseException) -> None:
        """Rank 0 says in status.json how the run ended."""
        with contextlib.suppress(Exception):
            self.close_loggers()

    def note_fault(self, fault: Fault) -> None:
        """Rank 0 has the same figures."""

    def log(self, row: dict[str, Any]) -> None:
        """Rank 0 has the same row."""
        self.share_skipped()

    def advance(self, step: int) -> None:
        """Keeps count."""
        self.step = step

    def save(self, trainer: Trainer) -> None:
        """Rank 0 has the same state, or gathers it."""
        if self.plan.is_sharded:
            trainer.state_dict()
