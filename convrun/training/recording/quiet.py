"""What the ranks beside rank 0 leave of a run: nothing but a log of their own. What they meet, they tell rank 0."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from convrun.contracts.logger import RunInfo
from convrun.contracts.metrics import Row
from convrun.data.skipped import SkippedImage
from convrun.display.screen import Screen
from convrun.distributed.meeting.rank_log import print_to_log
from convrun.process.device import device_text
from convrun.training.recording.contract import Changes, NonFiniteStep, RunFacts
from convrun.training.recording.recorder import share_skipped
from convrun.training.state import RunState


class QuietRecorder:
    """Another rank's record.

    Args:
        facts: what the run is.
        screen: where lines go; from `begin` on a log of this rank's own.
        step: where the run stands.
    """

    dump = ""

    def __init__(self, facts: RunFacts, screen: Screen, step: int) -> None:
        self.facts, self.screen, self.group, self.step = facts, screen, facts.group, step
        self._unshared: list[SkippedImage] = []  # images that rank 0 does not know of yet

    def begin(self, changes: Changes, notes: Sequence[str]) -> None:
        """Waits for rank 0, which makes the folder a run's, then prints to a log of its own."""
        self.group.wait()
        print_to_log(self.facts.folder.path, self.group.world)
        how = f"goes on after step {self.step}" if self.step else "starts"
        world = self.group.world
        self.say(f"rank {world.rank} of {world.size} on {world.host} {how} on {device_text(self.facts.machine)}")

    def open_loggers(self, info: RunInfo) -> None:
        """Rank 0 has them."""

    def log(self, row: Row) -> None:
        """Rank 0 has the same row; it is told of images that could not be read."""
        unshared, self._unshared = self._unshared, []
        share_skipped(self.facts, None, unshared)

    def say(self, text: str) -> None:
        """A line in this rank's log."""
        self.screen.say(text)

    def note_skipped(self, images: Iterable[SkippedImage]) -> None:
        """Keeps them until all ranks tell each other."""
        self._unshared += images

    def note_non_finite(self, step: NonFiniteStep) -> None:
        """Rank 0 has the same figures."""

    def advance(self, step: int) -> None:
        """Keeps count; rank 0 shows it."""
        self.step = step

    def save(self, state: RunState) -> None:
        """Rank 0 has the same state, or gathers the shares of it."""
        if not state.is_whole:
            state.state_dict()

    def wait_for_checkpoints(self) -> None:
        """Rank 0 writes them."""

    def is_all_saved(self) -> bool:
        """Rank 0 knows."""
        return True

    def finish(self, state: RunState) -> None:
        """Tells the last of what it has met, and gives its share of the state once more if rank 0 asks for it."""
        unshared, self._unshared = self._unshared, []
        share_skipped(self.facts, None, unshared)
        if not state.is_whole and self.group.from_first(lambda: False):
            state.state_dict()

    def leave_results(self, state: RunState) -> None:
        """Rank 0 has the same weights, or gathers them."""
        if not state.is_whole:
            state.weights()

    def fail(self, error: BaseException) -> None:
        """Rank 0 says in status.json how the run ended."""
