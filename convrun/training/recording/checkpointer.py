"""Saving the state of a run while it trains on."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from convrun import checkpoints
from convrun.errors import RunFolderError
from convrun.files.writing import is_disk_full, sync_folder, system_error
from convrun.training.recording.contract import RunFacts
from convrun.training.state import RunState


class Checkpointer:
    """Copies the state when it is to be saved, and writes the copy in the background, one at a time.

    What cannot be saved is said, and the next is tried when it is due; only at the end it is an error. The best states
    wait in memory and are written before the next: no later one could take their place.

    Args:
        facts: what the run is: its recipe and data go into every checkpoint, its plan says which stay.
        flush: hands the rows logged so far to the kernel, or raises RunFolderError. They are on the disk before a
            checkpoint gets its name.
        say: shows a line to the user.

    Attributes:
        waited_seconds: how long training waited for checkpoints: for copies, and for one that was not finished when the
            next was due.
    """

    def __init__(self, facts: RunFacts, flush: Callable[[], None], say: Callable[[str], None]) -> None:
        self.facts, self.plan, self.folder, self.flush, self.say = facts, facts.plan, facts.folder, flush, say
        self.waited_seconds = 0.0
        self._writer = checkpoints.BackgroundWriter()
        self._in_flight = 0  # the step that is being written
        self._failure: RunFolderError | None = None
        self._waiting: dict[int, dict[str, Any]] = {}  # the best states that found no room, by step
        self._notes: list[str] = []
        self._said: set[str] = set()
        self._began = self._since = time.perf_counter()
        self._told_seconds = 0.0

    def save(self, state: RunState) -> None:
        """Begins to write a checkpoint; returns when the state may change again."""
        with self._timed():
            self._settle()
            self._begin(state)

    def poll(self) -> None:
        """Says what became of the checkpoint in flight, if it is done; costs next to nothing."""
        if self._writer.is_done:
            self._settle()

    def wait(self) -> None:
        """Waits until nothing is in flight."""
        with self._timed():
            self._settle()

    def is_to_try_again(self) -> bool:
        """Whether `finish` has to save a state; waits for what is in flight."""
        with self._timed():
            self._settle(is_last=True)
        return self._failure is not None

    def finish(self, state: RunState) -> None:
        """Waits; a state that is not saved yet is tried once more.

        Raises:
            RunFolderError: it cannot be saved; what is, and how to go on.
        """
        with self._timed():
            self._settle(is_last=True)
            if self._failure is not None:
                self._begin(state, is_last=True)
                self._settle(is_last=True)
        if self._failure is not None:
            cure = "Free space on that disk" if is_disk_full(self._failure) else "Look at that disk and folder"
            go_on = "go on from there" if checkpoints.steps_in(self.folder.checkpoints) else "start again"
            raise RunFolderError(
                f"the state after step {state.progress.step} cannot be saved: {self._failure}; {self._what_stays()}. "
                f"{cure}, then {go_on} with: convrun run {shlex.quote(str(self.folder.path))}"
            ) from self._failure

    def take_share(self) -> float:
        """The share of the time since the last call that training waited for checkpoints."""
        now = time.perf_counter()
        share = (self.waited_seconds - self._told_seconds) / max(now - self._since, 1e-9)
        self._since, self._told_seconds = now, self.waited_seconds
        return round(min(share, 1.0), 4)

    def summary(self) -> str:
        """How long training waited for checkpoints, for the end of a run."""
        share = self.waited_seconds / max(time.perf_counter() - self._began, 1e-9)
        return f"training waited {self.waited_seconds:.1f} s for checkpoints, {share:.1%} of its time"

    def _begin(self, state: RunState, is_last: bool = False) -> None:
        self._in_flight = step = state.progress.step
        # First: of a sharded model all ranks send their shares, whatever rank 0's disk says.
        content = self._copy(state)
        best = [step for _, step in state.progress.best[: self.plan.checkpoints.keep.best]]
        self._waiting = {number: state for number, state in self._waiting.items() if number in best}
        try:
            self.folder.check_held()
            self.flush()
        except RunFolderError as error:
            if step in best:
                self._waiting[step] = content
            self._note_failure(error, is_last)
            return
        self._writer.start(partial(self._write, step, content, best))

    def _copy(self, state: RunState) -> dict[str, Any]:
        content = {
            **state.state_dict(),
            "samples_seen": state.progress.step * self.plan.training.batch_size,
            "recipe": self.facts.recipe.resolved(),
            "recipe_hash": self.plan.recipe_hash,
            "data": self.facts.data,
        }
        return checkpoints.copied(content) if state.is_whole else content

    def _write(self, step: int, content: dict[str, Any], best: list[int]) -> None:
        """In the writing thread."""
        folder, plan = self.folder.checkpoints, self.plan
        try:
            self._sync_rows()
            for number, state in sorted({**self._waiting, step: content}.items()):
                self._write_one(number, state, step)
        except RunFolderError:
            if step in best:
                self._waiting[step] = content
            raise
        for what in (
            partial(checkpoints.keep_only, folder, plan.checkpoints.keep.last, best, plan.keep_interval),
            partial(self.folder.set_status, "running", step, plan.total_steps),
        ):
            try:
                what()
            except RunFolderError as error:  # the checkpoint is there all the same
                self._notes.append(f"{error}; training goes on")

    def _write_one(self, number: int, state: dict[str, Any], due: int) -> None:
        """Writes one of those that wait, or the one that is due."""
        folder = self.folder.checkpoints
        try:
            checkpoints.save(folder, number, state, before_it_counts=self.folder.check_held)
        except RunFolderError as error:
            if number == due:
                raise
            # Why the one that waits cannot be written was said when it was due.
            system = system_error(error)
            raise RunFolderError(
                f"the checkpoint {checkpoints.path_of(folder, due)} is not tried, because the best, "
                f"step-{number}.pt, comes first and still cannot be written: {system.strerror if system else error}"
            ) from error
        self.folder.saved_step = number
        self._waiting.pop(number, None)

    def _sync_rows(self) -> None:
        """What was logged outlives a power cut if the checkpoint does; a file that holds nothing new costs nothing."""
        try:
            for folder in (self.folder.path, self.folder.path / "tensorboard"):
                for path in folder.glob("[!.]*"):
                    if path.is_file():
                        sync_folder(path)
        except OSError as error:
            raise RunFolderError(
                f"the rows in {self.folder.path} cannot be synced: {error.strerror or error}"
            ) from error

    def _settle(self, is_last: bool = False) -> None:
        """Waits for what is in flight, and says what became of it."""
        was_in_flight = self._writer.is_in_flight
        try:
            self._writer.wait()
        except RunFolderError as error:
            self._note_failure(error, is_last)
            return
        finally:
            notes, self._notes = self._notes, []
            for note in notes:
                if note not in self._said:
                    self.say(note)
            self._said.update(notes)
        if was_in_flight:
            if self._failure is not None:
                self.say(f"step-{self._in_flight}.pt is saved: checkpoints are written again")
            self._failure = None

    def _note_failure(self, error: RunFolderError, is_last: bool) -> None:
        self.folder.check_held()  # a run that another process has taken over is not gone on with
        self._failure = error
        if not is_last:
            self.say(f"{error}; {self._what_stays()}, training goes on, and the next is tried when it is due")

    def _what_stays(self) -> str:
        if steps := checkpoints.steps_in(self.folder.checkpoints):
            return f"step-{steps[-1]}.pt stays"
        if self.folder.saved_step is None:
            return "no checkpoint is saved yet"
        return f"of the checkpoints up to step-{self.folder.saved_step}.pt none is there any more"

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited_seconds += time.perf_counter() - start
