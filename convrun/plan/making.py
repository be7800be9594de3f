"""Recipe + machine -> Plan. Numbers that do not fit together are found here, each with its place in the recipe."""

from __future__ import annotations

import dataclasses
import math

from convrun.augment.evaluation_geometry import default_crop_ratio
from convrun.contracts.data import DataFacts
from convrun.errors import KeyProblem
from convrun.keys.durations import duration_seconds
from convrun.plan.arithmetic import (
    accumulation,
    interval,
    micro_batch_of,
    peak_lr,
    steps_per_epoch,
    total_steps,
    workers,
)
from convrun.plan.plan import Plan
from convrun.process.machine import Machine
from convrun.recipe import Recipe
from convrun.recipe.problems import Path, Problem, RecipeError
from convrun.recipe.sections import Arithmetic, Precision


def make_plan(recipe: Recipe, machine: Machine, facts: DataFacts | None = None, micro_batch: int | None = None) -> Plan:
    """The plan of a recipe on a machine.

    Args:
        recipe: a checked recipe.
        machine: where it runs.
        facts: classes and images of the data; by default those that the data component reports.
        micro_batch: what `auto` was when the run began, perhaps on another number of processes.

    Raises:
        RecipeError: numbers that do not fit together, each pointing into the recipe.
        DataError: the data must be read to be counted, and are missing.
    """
    training, problems = recipe.training, _Problems(recipe)
    with problems.of(("data",)):
        facts = facts or recipe.data.component.ask("facts", **recipe.data.own_values())
    problems.raise_all()
    assert facts is not None
    head_size = recipe.model.settings.num_classes or facts.num_classes
    steps = steps_per_epoch(facts.train_images, training.batch_size)
    _check_counts(recipe, facts, head_size, steps, problems)
    _check_input_size(recipe, problems)
    problems.raise_all()
    written = micro_batch or training.micro_batch
    micro_batch = 1  # a stand-in if it does not divide the batch, so that other problems are found as well
    with problems.of(("training",)):
        micro_batch = micro_batch_of(training.batch_size, written, machine.processes)
    evaluation, checkpoints, optimizer = recipe.evaluation, recipe.checkpoints, recipe.optimizer
    eval_batch = evaluation.batch_size if evaluation else "auto"
    plan = Plan(
        **recipe.sections(),
        recipe_hash=recipe.hash,
        written={name: value for name, value in recipe.resolved().items() if name in recipe.sections()},
        processes=machine.processes,
        device=machine.device,
        train_images=facts.train_images,
        val_images=facts.val_images,
        num_classes=head_size,
        data_classes=facts.num_classes,
        micro_batch=micro_batch,
        accumulation=accumulation(training.batch_size, micro_batch, machine.processes),
        steps_per_epoch=steps,
        total_steps=total_steps(training.epochs, training.steps, steps),
        peak_lr=peak_lr(optimizer.values["lr"], training.batch_size, optimizer.settings.lr_for_batch),
        precision=precision(training.precision, machine),
        stop_after_seconds=duration_seconds(training.stop_after) if training.stop_after else None,
        evaluation_interval=interval(evaluation.every_epochs, evaluation.every_steps, steps) if evaluation else None,
        evaluation_batch=micro_batch if eval_batch == "auto" else eval_batch,
        crop_ratio=crop_ratio(evaluation.crop_ratio if evaluation else "auto", recipe.input_size),
        checkpoint_interval=interval(checkpoints.every_epochs, checkpoints.every_steps, steps),
        keep_interval=checkpoints.keep.every_epochs and checkpoints.keep.every_epochs * steps,
        workers=workers(recipe.data.settings.workers, machine.cores, machine.processes // machine.nodes),
    )
    _check_lr(plan, problems)
    _check_mixing(plan, problems)
    _check_kept(recipe, plan, problems)
    problems.raise_all()
    return plan


def crop_ratio(written: float | str, input_size: int) -> float | None:
    """The evaluation's crop ratio; None stands for `squash`."""
    if written == "auto":
        return default_crop_ratio(input_size)
    return None if written == "squash" else float(written)


def precision(written: Precision, machine: Machine) -> Arithmetic | None:
    """The arithmetic of the forward pass; `auto` needs to know the device."""
    if written != "auto":
        return written
    if machine.device is None:
        return None
    return "bf16" if machine.device == "cuda" and machine.has_bf16 else "float32"


def _check_counts(recipe: Recipe, facts: DataFacts, head_size: int, steps: int, problems: _Problems) -> None:
    """There must be enough classes and images for the recipe."""
    if head_size < facts.num_classes:
        message = f"a head of {head_size} is too small for the {facts.num_classes} classes of the data"
        problems.add(("model", "num_classes"), message, "leave it out")
    if facts.num_classes < 2:
        message = "the data have one class: any model is always right, and its loss is 0"
        problems.add(("data", "num_classes"), message, "give data of two classes or more")
    if recipe.evaluation is not None and facts.val_images == 0:
        message = "is on, but the data have no validation images"
        problems.add(("evaluation",), message, "write evaluation: null")
    if steps == 0:
        problems.add(
            ("training", "batch_size"),
            f"a batch of {recipe.training.batch_size} is larger than the {facts.train_images} training images",
            f"batch_size can be at most {facts.train_images}",
        )


def _check_input_size(recipe: Recipe, problems: _Problems) -> None:
    """Images must be large enough for the model. If it does not say how large, `convrun.models.trial` tries it."""
    model, size = recipe.model, recipe.input_size
    if "smallest_input" not in model.component.meta:
        return

    def smallest(**changed: int) -> int:
        found: int = model.component.ask("smallest_input", **{**model.own_values(), **changed})
        return found

    with problems.of(("model",)):
        if size < smallest():
            message = f"{model.name} reduces {size} × {size} pixels to nothing"
            cure = f"set input_size to at least {smallest()}"
            patches = range(model.values.get("patch_size", 1) - 1, 0, -1)
            fitting = next((patch for patch in patches if smallest(patch_size=patch) <= size), None)
            cure += f", or model.patch_size to at most {fitting}" if fitting else ""
            problems.add(("input_size",), message, cure)


def _check_lr(plan: Plan, problems: _Problems) -> None:
    if not math.isfinite(plan.peak_lr):
        message = "lr × batch_size / lr_for_batch is infinite"
        problems.add(("optimizer", "lr_for_batch"), message, "lower lr, or raise lr_for_batch")
        return
    with problems.of(("scheduler",)), plan.scheduler.component.errors_attributed():
        for step in (0, plan.total_steps - 1):
            if not 0 <= plan.lr(step) < math.inf:
                message = f"{plan.scheduler.name} gives step {step} a learning rate of {plan.lr(step)}"
                problems.add(("scheduler",), message, "it must be finite, and not below 0")


def _check_kept(recipe: Recipe, plan: Plan, problems: _Problems) -> None:
    """A checkpoint can only be kept for good if one is written at that step."""
    epochs, every = recipe.checkpoints.keep.every_epochs, recipe.checkpoints.every_epochs
    if epochs is None or plan.keep_interval is None:
        return
    path = ("checkpoints", "keep", "every_epochs")
    if plan.keep_interval > plan.total_steps:
        problems.add(path, f"has no effect: the run ends before {epochs} epochs are done", "lower or remove it")
    elif plan.keep_interval % plan.checkpoint_interval:
        cure = f"use a multiple of checkpoints.every_epochs ({every})" if every else "set checkpoints.every_epochs"
        problems.add(path, f"no checkpoint is written at the end of epoch {epochs}", cure)


def _check_mixing(plan: Plan, problems: _Problems) -> None:
    for choice in plan.batch_augmentations:
        if choice.component.meta.get("mixes", False) and plan.micro_batch == 1 and not problems.found:
            message = f"{choice.name} mixes the images of a micro-batch, and a micro-batch is one image"
            problems.add(choice.path, message, "raise training.micro_batch or remove it")


class _Problems:
    """Collects the KeyProblems of components and arithmetic, with their places in the recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.found: list[Problem] = []

    def add(self, path: Path, message: str, cure: str = "") -> None:
        self.found.append(Problem(self.recipe.nearest_place(path), path, message, cure))

    def of(self, section: Path) -> _Collecting:
        return _Collecting(self, section)

    def raise_all(self) -> None:
        if self.found:
            raise RecipeError(self.found)


@dataclasses.dataclass
class _Collecting:
    problems: _Problems
    section: Path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        if not isinstance(error, KeyProblem):
            return False
        self.problems.add((*self.section, error.key) if error.key else self.section, error.message, error.cure)
        return True
