"""One process's share of a run: its folder, screen, loggers, checkpoints; what the trainer tells, it writes down."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convrun.contracts.data import ImageSet
from convrun.contracts.logger import Logger, RunInfo
from convrun.data.skipped import SkippedImage, SkippedImages
from convrun.display.row_notice import row_notice
from convrun.display.screen import Screen
from convrun.distributed.failing.failure import Failure
from convrun.distributed.group import Group
from convrun.distributed.stopping import AgreedStop
from convrun.errors import Interrupted, RunFolderError
from convrun.plan import Machine, Plan, checkpoint_bytes, kept_checkpoints, sharding_note
from convrun.process.device import device_text
from convrun.process.signals import StopRequest
from convrun.recipe import Recipe
from convrun.recipe.writing import recipe_yaml
from convrun.run_folder import RunFolder, explained
from convrun.run_folder.environment import add_start
from convrun.training.building import Feeds, build_trainer, restore
from convrun.training.faults.advice import advising
from convrun.training.faults.non_finite import Fault
from convrun.training.outcome import Outcome, check_is_complete, state_after, state_of
from convrun.training.placing import placed
from convrun.training.recording.checkpointer import Checkpointer
from convrun.training.recording.debug_dump import write_dump
from convrun.training.recording.weights import export_weights
from convrun.training.resuming.finding import Resume, check_has_effect, data_facts, is_finished, saved_state
from convrun.training.resuming.schedule import schedule_changes
from convrun.training.starting_point import found_for_all
from convrun.training.state import RunState
from convrun.training.trainer import Trainer


class Session:
    """The parts of one run that are open while it trains; the trainer's observer."""

    def __init__(
        self,
        recipe: Recipe,
        plan: Plan,
        machine: Machine,
        folder: RunFolder,
        screen: Screen,
        stop: StopRequest,
        train_set: ImageSet,
        val_set: ImageSet,
        model: nn.Module,
        init_text: str = "",
        group: Group | None = None,
    ) -> None:
        self.recipe, self.plan, self.machine, self.folder = recipe, plan, machine, folder
        self.screen, self.stop, self.train_set, self.val_set = screen, stop, train_set, val_set
        self.device = torch.device(machine.device or "cpu")
        self.model = placed(model, plan, self.device)
        self.init_text, self.group = init_text, group or Group()
        self.loggers: list[Logger] = []
        self.skipped = SkippedImages(
            {"train": plan.train_images, "val": plan.val_images},
            plan.data.settings.bad_images_limit,
            folder.path / "skipped_images.jsonl" if self.group.is_first else None,
            screen.say,
        )
        self.unshared: list[SkippedImage] = []  # images that rank 0 does not know of yet
        self.data = data_facts(train_set, val_set)
        self.checkpointer = Checkpointer(recipe, plan, folder, self.data, self.flush, screen.say)
        self.step = 0
        self.record = ""  # where the last step with a number that is none is recorded

    def go(self, resume: Resume, allow_changes: Sequence[str]) -> Outcome:
        """Trains to the end; every way out leaves a true status.json."""
        find = partial(saved_state, self.folder, self.recipe, self.data, self.model, resume, allow_changes)
        found = found_for_all(self.group, partial(find, self.say_and_log))
        saved, path, changes = found.content, found.path, found.changes
        self.step = saved["state"]["step"] if saved is not None else 0
        if saved is not None and not changes:
            state = saved["state"]
            if self.group.from_first(partial(is_finished, self.folder, self.plan, state)):
                best = state["best"]
                return Outcome(self.folder.path, best[0][0] if best else None, self.step, was_finished=True)
        notes = self.group.from_first(partial(self.notes_on, changes, saved))
        self.stop.begin()
        start_step = self.step
        try:
            self.begin(changes, notes)
            trainer = self.trainer(saved, path)
            del saved, found  # their tensors would take memory as long as the run lasts
            with advising(self.checkpointer, self.plan, self.folder.path, lambda: self.record):
                trainer.train()
            self.end_training(trainer)
            check_is_complete(trainer, self.stop, start_step, self.command)
            self.leave_results(trainer)
        except KeyboardInterrupt as error:
            self.note_end(error)
            is_over = self.step >= self.plan.total_steps
            where = "after the last step" if is_over else f"in the midst of step {self.step + 1}"
            raise Interrupted(
                f"stopped at once, {where}; go on from the last checkpoint with: {self.command}"
            ) from error
        except BaseException as error:
            self.note_end(error)
            raise
        best = trainer.state.best
        because = trainer.state.stopped_because
        return Outcome(self.folder.path, best[0][0] if best else None, self.step, stopped_because=because)

    def notes_on(self, changes: list[tuple[str, Any, Any]], saved: dict[str, Any] | None) -> list[str]:
        """What the changes do to the schedule; raises RunFolderError if there is nothing that they could change."""
        notes = schedule_changes(self.folder, self.plan, self.machine, changes, self.step)
        if saved is not None and changes:
            check_has_effect(self.folder, self.plan, saved["state"], changes)
        return notes

    def begin(self, changes: list[tuple[str, Any, Any]], notes: Sequence[str]) -> None:
        """Writes what the folder says of the run, and tells the user where it is."""
        if self.step == 0:
            size = 4 * sum(p.numel() for p in self.model.parameters())
            per_checkpoint = checkpoint_bytes(self.plan) or 4 * size
            self.folder.check_space(per_checkpoint * kept_checkpoints(self.plan) + 4 * size)
        # Before recipe.yaml, which makes a change the run's own: a kill between the two must not hide it.
        versions = add_start(self.folder, device_text(self.machine), changes, self.step)
        self.folder.write_json("plan.json", self.plan.as_dict())
        self.folder.write("recipe.yaml", recipe_yaml(self.recipe))
        self.folder.set_status("running", self.step, self.plan.total_steps)
        with explained(f"{self.folder.path / 'train.log'}", "choose another folder with --output"):
            self.screen.log_to(self.folder.path / "train.log")
        how = f"goes on after step {self.step} of {self.plan.total_steps}" if self.step else "starts"
        self.screen.say(f"{self.plan.name} {how} in {self.folder.path} on {device_text(self.machine)}")
        for line in (self.init_text, versions, sharding_note(self.plan), *notes):
            if line:
                self.screen.say(line)
        self.group.on_failure = self.note_failure
        self.group.wait()

    def trainer(self, saved: dict[str, Any] | None, path: Path) -> Trainer:
        """Everything the plan names, built; the saved state loaded into it."""
        plan, state = self.plan, saved["state"] if saved is not None else RunState().state_dict()
        info = RunInfo(
            name=plan.name,
            folder=self.folder.path,
            recipe=self.recipe.resolved(),
            total_steps=plan.total_steps,
            steps_per_epoch=plan.steps_per_epoch,
            start_step=self.step,
            evaluated_step=state["evaluated_step"],
            report=plan.report,
            best_top1=state["best"][0][0] if state["best"] else None,
            screen=self.screen,
        )
        feeds = Feeds(plan, self.train_set, self.val_set, self.device, self.group, self.note_skipped)
        should_stop = AgreedStop(self.stop, self.group)
        trainer = build_trainer(plan, self.model, feeds, info, self, should_stop, self.group)
        if saved is not None:
            restore(trainer, saved, path)
        # Loggers come last: they drop what an earlier process wrote beyond the state it saved.
        self.open_loggers(info)
        return trainer

    def open_loggers(self, info: RunInfo) -> None:
        """Those that the plan names."""
        for choice in self.plan.loggers:
            self.loggers.append(choice.create(info))

    def end_training(self, trainer: Trainer) -> None:
        """Brings all that was trained and logged to the disk."""
        self.share_skipped()
        if self.plan.is_sharded:  # the others give their shares once more if the state is to be saved once more
            self.group.from_first(self.checkpointer.is_to_try_again)
        self.checkpointer.finish(trainer)
        self.close_loggers()
        self.screen.say(self.checkpointer.summary())
        if len(self.skipped):
            self.screen.say(self.skipped.summary())

    def leave_results(self, trainer: Trainer) -> None:
        """The weights, and the word that the run is finished."""
        export_weights(self.folder, trainer, self.screen.say)
        self.screen.flush_log()
        self.folder.set_status("finished", self.step, self.plan.total_steps)

    def close_loggers(self) -> None:
        """Each once, whatever another one raises."""
        with contextlib.ExitStack() as stack:
            for logger in reversed(self.loggers):
                stack.callback(logger.close)
            self.loggers = []
        self.screen.stop_progress()

    def note_end(self, error: BaseException) -> None:
        """Takes down what is open and says in status.json how the run ended; what fails in that hides no error."""
        # A second Ctrl-C waits for nothing: the thread that writes a checkpoint ends with the process.
        is_at_once = isinstance(error, KeyboardInterrupt)
        for end in (self.close_loggers,) if is_at_once else (self.checkpointer.wait, self.close_loggers):
            with contextlib.suppress(Exception):
                end()
        text, state = "", state_after(error)
        if state in ("failed", "diverged"):
            text = str(error) or type(error).__name__
        # It may be only the echo of what happened in another process.
        if (
            state == "failed"
            and not getattr(error, "is_agreed", False)
            and (failure := self.group.cause_of(error)) is not None
            and failure.rank != self.group.rank
        ):
            text, state = failure.text(), state_of(failure)
            self.screen.record(text)
        with contextlib.suppress(RunFolderError):
            if self.folder.holds_a_run():
                self.folder.set_status(state, self.step, self.plan.total_steps, text)

    def note_failure(self, failure: Failure) -> None:
        """The run failed in another process; this one is about to end."""
        text = failure.text()
        self.screen.stop_progress()
        self.screen.record(text)
        self.folder.set_status(state_of(failure), self.step, self.plan.total_steps, text)

    def note_fault(self, fault: Fault) -> None:
        """Records the step; one that is left out is said."""
        self.record = write_dump(self.folder, fault, self.plan, self.train_set)
        if fault.is_skipped:
            self.say(f"step {fault.step} is skipped: {fault.what}; {self.record}")

    def note_skipped(self, images: Iterable[SkippedImage]) -> None:
        """Images that this process could not read; raises DataError if the run puts up with no more."""
        self.skipped.add(images)

    def share_skipped(self) -> None:
        """Rank 0 lists what the others could not read; collective."""
        if self.group.size > 1 and self.plan.data.settings.bad_images == "skip":
            unshared, self.unshared = self.unshared, []
            for images in self.group.from_all(unshared):
                self.skipped.add(images)

    def say(self, text: str) -> None:
        """A line for the user."""
        self.screen.say(text)

    def log(self, row: dict[str, Any]) -> None:
        """A row for every logger; an evaluation without some images says so."""
        self.share_skipped()
        self.folder.check_held()
        if row["kind"] == "eval" and row["images"] < self.plan.val_images:
            row = {**row, "skipped": self.plan.val_images - row["images"]}
        if row["kind"] == "train":
            row = {**row, "checkpoint_wait": self.checkpointer.take_share()}
        if notice := row_notice(row):
            self.say(notice)
        for logger in self.loggers:
            logger.log(row)

    def advance(self, step: int) -> None:
        """Moves the progress display."""
        self.step = step
        self.screen.advance(step)
        self.checkpointer.poll()

    def save(self, trainer: Trainer) -> None:
        """Hands the state to the checkpointer."""
        self.checkpointer.save(trainer)

    def flush(self) -> None:
        """Hands what was logged so far to the kernel; raises RunFolderError if that cannot be done."""
        for logger in self.loggers:
            flush = getattr(logger, "flush", None)  # a plugin need not have one
            if flush is not None:
                flush()
        self.skipped.flush()

    def say_and_log(self, text: str) -> None:
        """A line for the user before the run's log is open for good."""
        self.screen.log_to(self.folder.path / "train.log")
        self.screen.say(text)

    @property
    def command(self) -> str:
        """What goes on with this run, to paste."""
        return f"convrun run {shlex.quote(str(self.folder.path))}"
