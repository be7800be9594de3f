"""One process's share of a run: its folder, screen, loggers, checkpoints; what the trainer tells, it writes down."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from convrun import checkpoints
from convrun.augment.crops import evaluation_transform
from convrun.components.augmentations import Shape
from convrun.components.loggers import Logger, RunInfo
from convrun.data.feed import EvalFeed, TrainFeed
from convrun.data.image_set import ImageSet
from convrun.data.order import MicroBatches
from convrun.data.skipped import SkippedImages
from convrun.data.tolerance import Tolerance
from convrun.display.recipe_text import recipe_yaml
from convrun.display.screen import Screen
from convrun.errors import CheckpointError, Diverged, Interrupted, Preempted, RunFolderError
from convrun.plan import Machine, Plan, checkpoint_bytes, kept_checkpoints
from convrun.recipe import Recipe
from convrun.resume import check_same_data, check_unchanged, drop_what_changed
from convrun.run_folder import RunFolder, explained
from convrun.training.device import device_text
from convrun.training.outcome import Outcome
from convrun.training.parameter_groups import parameter_groups
from convrun.training.signals import StopRequest
from convrun.training.state import RunState
from convrun.training.trainer import Trainer
from convrun.training.weights import export_weights

Resume = Literal["auto", "never", "must"]


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
    ) -> None:
        self.recipe, self.plan, self.machine, self.folder = recipe, plan, machine, folder
        self.screen, self.stop, self.train_set, self.val_set = screen, stop, train_set, val_set
        self.device = torch.device(machine.device or "cpu")
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.init_text = init_text
        self.loggers: list[Logger] = []
        self.skipped = SkippedImages(
            {"train": plan.train_images, "val": plan.val_images},
            plan.bad_images_limit,
            folder.path / "skipped_images.jsonl",
            screen.say,
        )
        self.step = 0

    def go(self, resume: Resume, allow_changes: Sequence[str]) -> Outcome:
        """Trains to the end; every way out leaves a true status.json."""
        saved, path, changes = self.saved_state(resume, allow_changes)
        self.step = saved["state"]["step"] if saved is not None else 0
        if saved is not None and not changes and self.is_finished(saved["state"]):
            best = saved["state"]["best"]
            return Outcome(self.folder.path, best[0][0] if best else None, self.step, was_finished=True)
        try:
            self.begin(changes)
            trainer = self.trainer(saved, path)
            saved = None  # its tensors would take memory as long as the run lasts
            trainer.train()
            self.close_loggers()
            if len(self.skipped):
                self.screen.say(self.skipped.summary())
            self.check_is_complete(trainer)
            export_weights(self.folder, trainer)
            self.folder.set_status("finished", self.step, self.plan.total_steps)
        except KeyboardInterrupt as error:
            self.note_end(error)
            raise Interrupted(
                f"stopped at once, in the midst of step {self.step + 1}; go on from the last checkpoint with: "
                f"{self.command}"
            ) from error
        except BaseException as error:
            self.note_end(error)
            raise
        best = trainer.state.best
        because = trainer.state.stopped_because
        return Outcome(self.folder.path, best[0][0] if best else None, self.step, stopped_because=because)

    def is_finished(self, state: dict[str, Any]) -> bool:
        """Whether nothing is left to do: no step, and neither an evaluation nor the weights' export."""
        is_over = bool(state["stopped_because"]) or state["step"] >= self.plan.total_steps
        return is_over and (self.folder.read_json("status.json") or {}).get("state") == "finished"

    def saved_state(
        self, resume: Resume, allow_changes: Sequence[str]
    ) -> tuple[dict[str, Any] | None, Path, list[tuple[str, Any, Any]]]:
        """The newest checkpoint's content, if the run is to go on from one; its file; the changes since."""
        steps = checkpoints.steps_in(self.folder.checkpoints)
        if not steps:
            if resume == "must":
                raise RunFolderError(f"--resume must: {self.folder.path} holds no checkpoint to go on from")
            return None, self.folder.path, []
        if resume == "never":
            raise RunFolderError(
                f"--resume never: {self.folder.path} holds a run already; choose another folder with --output"
            )
        changes = check_unchanged(self.folder, self.recipe, allow_changes)
        path = checkpoints.path_of(self.folder.checkpoints, steps[-1])
        saved = checkpoints.load(path)
        if missing := RunState.missing_in(saved["state"]):
            raise CheckpointError(f"{path} does not fit the recipe: its state has no {missing[0]}; delete it")
        checkpoints.check_same_tensors(path, saved["model"], self.model.state_dict())
        if not any(key.split(".")[0] == "data" for key, _, _ in changes):
            check_same_data(path, saved["data"], self.data_facts())
        if changes:
            drop_what_changed(saved, [key for key, _, _ in changes])
        return saved, path, changes

    def data_facts(self) -> dict[str, Any]:
        """What a checkpoint remembers of the data: the class map, and how many images there are."""
        return {
            "class_names": list(self.train_set.class_names),
            "train_images": len(self.train_set),
            "val_images": len(self.val_set),
        }

    def begin(self, changes: list[tuple[str, Any, Any]]) -> None:
        """Writes what the folder says of the run, and tells the user where it is."""
        if self.step == 0:
            size = 4 * sum(p.numel() for p in self.model.parameters())
            per_checkpoint = checkpoint_bytes(self.plan) or 4 * size
            self.folder.check_space(per_checkpoint * kept_checkpoints(self.plan) + 4 * size)
        # Before recipe.yaml, which makes a change the run's own: a kill between the two must not hide it.
        self.folder.add_start(device_text(self.machine), changes, self.step)
        self.folder.write_json("plan.json", self.plan.as_dict())
        self.folder.write("recipe.yaml", recipe_yaml(self.recipe))
        self.folder.set_status("running", self.step, self.plan.total_steps)
        with explained(f"{self.folder.path / 'train.log'}", "choose another folder with --output"):
            self.screen.log_to(self.folder.path / "train.log")
        how = f"goes on after step {self.step} of {self.plan.total_steps}" if self.step else "starts"
        self.screen.say(f"{self.plan.name} {how} in {self.folder.path} on {device_text(self.machine)}")
        if self.init_text:
            self.screen.say(self.init_text)

    def trainer(self, saved: dict[str, Any] | None, path: Path) -> Trainer:
        """Everything the plan names, built; the saved state loaded into it."""
        plan = self.plan
        info = RunInfo(
            name=plan.name,
            folder=self.folder.path,
            recipe=self.recipe.resolved(),
            total_steps=plan.total_steps,
            steps_per_epoch=plan.steps_per_epoch,
            start_step=self.step,
            evaluated_step=saved["state"]["evaluated_step"] if saved is not None else 0,
            screen=self.screen,
        )
        shape = Shape(plan.input_size, plan.num_classes, plan.mean, plan.std)
        transform = evaluation_transform(plan.input_size, plan.crop_ratio, plan.interpolation)
        image_augmentations = [choice.create(shape) for choice in plan.image_augmentations]
        if not any(choice.component.meta.get("crops", False) for choice in plan.image_augmentations):
            image_augmentations.append(_WithoutDraws(transform))
        loading: dict[str, Any] = {
            "input_size": plan.input_size,
            "prefetch": plan.prefetch,
            "device": self.device,
            "tolerance": Tolerance(plan.retries, plan.bad_images == "skip", plan.timeout_seconds),
            "on_skipped": self.skipped.add,
        }
        trainer = Trainer(
            plan,
            self.model,
            plan.optimizer.create(parameter_groups(self.model, plan.layer_decay, plan.layer_decay_levels)),
            plan.loss.create(),
            partial(self.open_feed, image_augmentations, loading),
            self,
            batch_augmentations=[choice.create(shape) for choice in plan.batch_augmentations],
            validation=EvalFeed(
                self.val_set, transform, batch_size=plan.evaluation_batch, workers=plan.workers, **loading
            ),
            callbacks=[choice.create(info) for choice in plan.callbacks],
            should_stop=lambda: self.stop.is_set,
        )
        if saved is not None:
            try:
                trainer.load_state_dict(saved)
            except CheckpointError as error:
                raise CheckpointError(f"{path}: {error}") from error
            except (AttributeError, LookupError, ValueError, TypeError, RuntimeError) as error:
                raise CheckpointError(f"{path} does not fit the recipe: {error}; train in another folder") from error
        # Loggers come last: they drop what an earlier process wrote beyond the state it saved.
        for choice in plan.loggers:
            self.loggers.append(choice.create(info))
        return trainer

    def close_loggers(self) -> None:
        """Each once, whatever another one raises."""
        with contextlib.ExitStack() as stack:
            for logger in reversed(self.loggers):
                stack.callback(logger.close)
            self.loggers = []
        self.screen.stop_progress()

    def note_end(self, error: BaseException) -> None:
        """Takes down what is open and says in status.json how the run ended; what fails in that hides no error."""
        with contextlib.suppress(Exception):
            self.close_loggers()
        text = (
            "" if isinstance(error, Interrupted | Preempted | KeyboardInterrupt) else str(error) or type(error).__name__
        )
        with contextlib.suppress(RunFolderError):
            if self.folder.holds_a_run():
                self.folder.set_status(_state_after(error), self.step, self.plan.total_steps, text)

    def open_feed(self, augmentations: list[Any], loading: dict[str, Any], start_step: int) -> TrainFeed:
        """The run's micro-batches from a step on."""
        plan = self.plan
        order = MicroBatches(
            seed=plan.seed,
            images=plan.train_images,
            batch_size=plan.batch_size,
            micro_batch=plan.micro_batch,
            start_step=start_step,
            end_step=plan.total_steps,
        )
        return TrainFeed(self.train_set, order, augmentations, workers=plan.workers, **loading)

    def log(self, row: dict[str, Any]) -> None:
        """A row for every logger; an evaluation without some images says so."""
        if row["kind"] == "eval" and row["images"] < self.plan.val_images:
            row = {**row, "skipped": self.plan.val_images - row["images"]}
        for logger in self.loggers:
            logger.log(row)

    def advance(self, step: int) -> None:
        """Moves the progress display."""
        self.step = step
        self.screen.advance(step)

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint, and deletes those that need not stay."""
        state = trainer.state
        content = {
            **trainer.state_dict(),
            "samples_seen": state.step * self.plan.batch_size,
            "recipe": self.recipe.resolved(),
            "recipe_hash": self.plan.recipe_hash,
            "data": self.data_facts(),
        }
        folder = self.folder.checkpoints
        checkpoints.save(folder, state.step, content)
        checkpoints.keep_only(folder, self.plan.keep_last, [step for _, step in state.best[: self.plan.keep_best]])
        self.folder.set_status("running", state.step, self.plan.total_steps)

    def check_is_complete(self, trainer: Trainer) -> None:
        """Raises what a signal asked for, with the command to go on, if steps or the last evaluation are left."""
        left = self.plan.total_steps - self.step
        if trainer.state.stopped_because or not (left or trainer.is_evaluation_due()):
            return
        what = f"{left} to go" if left else "its evaluation to go"
        raise self.stop.error(
            f"stopped after step {self.step} of {self.plan.total_steps} ({what}), all saved; go on with: {self.command}"
        )

    @property
    def command(self) -> str:
        """What goes on with this run, to paste."""
        return f"convrun run {shlex.quote(str(self.folder.path))}"


@dataclasses.dataclass(frozen=True)
class _WithoutDraws:
    """The evaluation's geometry in the place of an augmentation, for recipes that list no crop."""

    transform: Any

    def __call__(self, image: Any, _generator: Any) -> Any:
        return self.transform(image)


def _state_after(error: BaseException) -> Literal["interrupted", "preempted", "diverged", "failed"]:
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Preempted):
        return "preempted"
    return "diverged" if isinstance(error, Diverged) else "failed"
