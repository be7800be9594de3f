"""What rank 0 leaves of a run: its folder, screen, loggers and checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from convrun.contracts.logger import Logger, RunInfo
from convrun.contracts.metrics import Row, notice, with_checkpoint_wait, with_skipped
from convrun.data.skipped import SkippedImage, SkippedImages
from convrun.display.screen import Screen
from convrun.distributed.failing.failure import Failure
from convrun.errors import RunFolderError
from convrun.files.writing import explained
from convrun.plan import checkpoint_bytes, kept_checkpoints, warnings
from convrun.process.device import device_text
from convrun.recipe.writing import recipe_yaml
from convrun.run_folder.environment import add_start
from convrun.training.outcome import state_after, state_of_failure
from convrun.training.recording.checkpointer import Checkpointer
from convrun.training.recording.contract import Changes, NonFiniteStep, RunFacts
from convrun.training.recording.debug_dump import write_dump
from convrun.training.recording.weights import export_weights
from convrun.training.state import RunState


class RunRecorder:
    """Rank 0's record.

    Args:
        facts: what the run is.
        screen: where lines for the user go.
        step: where the run stands.

    Attributes:
        step: optimizer steps done.
        checkpointer: writes checkpoints in the background.
        dump: where the last non-finite step is recorded, in words.
    """

    def __init__(self, facts: RunFacts, screen: Screen, step: int) -> None:
        self.facts, self.screen, self.group, self.step = facts, screen, facts.group, step
        self._loggers: list[Logger] = []
        plan, folder = facts.plan, facts.folder
        self.skipped = SkippedImages(
            {"train": plan.train_images, "val": plan.val_images},
            plan.data.settings.bad_images_limit,
            folder.path / "skipped_images.jsonl",
            screen.say,
        )
        self.checkpointer = Checkpointer(facts, self._flush, screen.say)
        self.dump = ""

    def begin(self, changes: Changes, notes: Sequence[str]) -> None:
        """Writes what the folder says of the run, and tells the user where it is."""
        plan, folder, step = self.facts.plan, self.facts.folder, self.step
        if step == 0:
            size = 4 * self.facts.parameters
            per_checkpoint = checkpoint_bytes(plan) or 4 * size
            folder.check_space(per_checkpoint * kept_checkpoints(plan) + 4 * size)
        device = device_text(self.facts.machine)
        # Before recipe.yaml, which makes a change the run's own: a kill between the two must not hide it.
        versions = add_start(folder, device, list(changes), step)
        folder.write_json("plan.json", plan.as_dict())
        folder.write("recipe.yaml", recipe_yaml(self.facts.recipe))
        folder.set_status("running", step, plan.total_steps)
        with explained(f"{folder.path / 'train.log'}", "choose another folder with --output"):
            self.screen.log_to(folder.path / "train.log")
        how = f"goes on after step {step} of {plan.total_steps}" if step else "starts"
        self.screen.say(f"{plan.name} {how} in {folder.path} on {device}")
        for line in (*notes, versions, *(f"warning: {text}" for text in warnings(plan))):
            if line:
                self.screen.say(line)
        self.group.on_failure = self._note_failure
        self.group.wait()  # until now there was no folder that the other ranks could print to

    def open_loggers(self, info: RunInfo) -> None:
        """Opens those that the plan names: they drop what an earlier process wrote beyond the state it saved."""
        for choice in self.facts.plan.loggers:
            self._loggers.append(choice.create(info))

    def log(self, row: Row) -> None:
        """A row for every logger; an evaluation without some images says so."""
        share_skipped(self.facts, self.skipped, [])
        self.facts.folder.check_held()
        row = with_skipped(row, self.facts.plan.val_images)
        row = with_checkpoint_wait(row, self.checkpointer.take_share)
        if text := notice(row):
            self.say(text)
        for logger in self._loggers:
            logger.log(row)

    def say(self, text: str) -> None:
        """A line for the user."""
        self.screen.say(text)

    def note_skipped(self, images: Iterable[SkippedImage]) -> None:
        """Lists images that this rank could not read; raises DataError if there are more than the recipe allows."""
        self.skipped.add(images)

    def note_non_finite(self, step: NonFiniteStep) -> None:
        """Records the step; one that is skipped is said."""
        self.dump = write_dump(self.facts.folder, step, self.facts.plan, self.facts.images[0])
        if step.is_skipped:
            self.say(f"step {step.step} is skipped: {step.what}; {self.dump}")

    def advance(self, step: int) -> None:
        """Moves the progress display."""
        self.step = step
        self.screen.advance(step)
        self.checkpointer.poll()

    def save(self, state: RunState) -> None:
        """Hands the state to the checkpointer, which copies it and writes the copy in the background."""
        self.checkpointer.save(state)

    def wait_for_checkpoints(self) -> None:
        """Waits for the one in flight."""
        self.checkpointer.wait()

    def is_all_saved(self) -> bool:
        """Whether the disk took the last state."""
        return not self.checkpointer.is_to_try_again()

    def finish(self, state: RunState) -> None:
        """Brings all that was trained and logged to the disk."""
        share_skipped(self.facts, self.skipped, [])
        if not state.is_whole:  # the others give their shares once more if the state is to be saved once more
            self.group.from_first(self.checkpointer.is_to_try_again)
        self.checkpointer.finish(state)
        self._close_loggers()
        self.screen.say(self.checkpointer.summary())
        if len(self.skipped):
            self.screen.say(self.skipped.summary())

    def leave_results(self, state: RunState) -> None:
        """Writes the weights, and that the run is finished."""
        export_weights(self.facts, state, self.screen.say)
        self.screen.flush_log()
        self.facts.folder.set_status("finished", self.step, self.facts.plan.total_steps)

    def fail(self, error: BaseException) -> None:
        """Takes down what is open and says in status.json how the run ended; what fails in that hides no error."""
        # A second Ctrl-C waits for nothing: the thread that writes a checkpoint ends with the process.
        is_at_once = isinstance(error, KeyboardInterrupt)
        for end in (self._close_loggers,) if is_at_once else (self.checkpointer.wait, self._close_loggers):
            with contextlib.suppress(Exception):
                end()
        text, state = "", state_after(error)
        if state in ("failed", "diverged"):
            text = str(error) or type(error).__name__
        # It may be only the echo of what happened on another rank.
        if (
            state == "failed"
            and not getattr(error, "is_agreed", False)
            and (failure := self.group.cause_of(error)) is not None
            and failure.rank != self.group.rank
        ):
            text, state = failure.text(), state_of_failure(failure)
            self.screen.record(text)
        with contextlib.suppress(RunFolderError):
            if self.facts.folder.holds_a_run():
                self.facts.folder.set_status(state, self.step, self.facts.plan.total_steps, text)

    def _note_failure(self, failure: Failure) -> None:
        """The run failed on another rank; this process is about to end."""
        text = failure.text()
        self.screen.stop_progress()
        self.screen.record(text)
        self.facts.folder.set_status(state_of_failure(failure), self.step, self.facts.plan.total_steps, text)

    def _close_loggers(self) -> None:
        """Each once, whatever another one raises."""
        with contextlib.ExitStack() as stack:
            for logger in reversed(self._loggers):
                stack.callback(logger.close)
            self._loggers = []
        self.screen.stop_progress()

    def _flush(self) -> None:
        """Hands what was logged so far to the kernel; raises RunFolderError if that cannot be done."""
        for logger in self._loggers:
            flush = getattr(logger, "flush", None)  # a plugin need not have one
            if flush is not None:
                flush()
        self.skipped.flush()


def share_skipped(facts: RunFacts, known: SkippedImages | None, unshared: list[SkippedImage]) -> None:
    """Tells rank 0, which lists them, of the images that the other ranks could not read; collective."""
    if facts.group.size > 1 and facts.plan.data.settings.bad_images == "skip":
        for images in facts.group.from_all(unshared):
            if known is not None:
                known.add(images)
