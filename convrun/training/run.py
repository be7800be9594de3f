"""A run from start to end: open what the recipe names, then let a session train it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from convrun import checkpoints
from convrun.data.image_set import ImageSet
from convrun.display.outcome_text import outcome_text
from convrun.display.screen import Screen
from convrun.errors import ConvrunError, DataError
from convrun.plan import Plan, make_plan
from convrun.randomness import derived_seed
from convrun.recipe import Choice, Recipe
from convrun.run_folder import RunFolder
from convrun.training.device import this_machine
from convrun.training.outcome import Outcome
from convrun.training.session import Resume, Session
from convrun.training.signals import StopRequest
from convrun.weights.initial import load_initial


def run(
    recipe: Recipe,
    output: Path | None = None,
    *,
    resume: Resume = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    allow_changes: Sequence[str] = (),
    screen: Screen | None = None,
) -> Outcome:
    """Trains a recipe on this machine, from the start or from the folder's last checkpoint.

    Args:
        recipe: a checked recipe.
        output: the run folder; by default a new one under `runs/`.
        resume: `auto` goes on if the folder holds a checkpoint, `never` refuses then, `must` refuses otherwise.
        device: where to train.
        allow_changes: recipe keys that may differ from those the folder's run began with.
        screen: where lines go.

    Raises:
        ConvrunError: each with the exit code that fits (`convrun.errors`); the state is saved where there is any.
    """
    machine = this_machine(device)
    folder = RunFolder(output) if output is not None else RunFolder.named(recipe.name, recipe.hash)
    # What can fail without a folder fails before one is made: nothing half-written stays behind. The data come first,
    # because other data than the recipe's make the plan's numbers wrong in turn.
    train_set, val_set = open_data(recipe.data)
    plan = make_plan(recipe, machine)
    check_counts(plan, train_set, val_set)
    model = build_model(plan)
    # A run that goes on has its weights in the checkpoint; the file it began with may be gone by then.
    is_new = not checkpoints.steps_in(folder.checkpoints)
    init_text = load_initial(model, plan.init, plan.num_classes) if is_new and plan.init is not None else ""
    screen = screen or Screen()
    with folder.opened(), StopRequest() as stop:
        try:
            begun = Session(recipe, plan, machine, folder, screen, stop, train_set, val_set, model, init_text)
            outcome = begun.go(resume, allow_changes)
            screen.record(outcome_text(recipe, outcome))
            return outcome
        except ConvrunError as error:
            screen.record(str(error))
            raise
        finally:
            screen.close()


def open_data(data: Choice) -> tuple[ImageSet, ImageSet]:
    """Both splits of a recipe's data.

    Raises:
        DataError: they are missing, or not what the recipe declares.
    """
    return data.create("train"), data.create("val")


def check_counts(plan: Plan, train_set: ImageSet, val_set: ImageSet) -> None:
    """Raises DataError if the data are not what their component told the plan."""
    for name, images, count in (("training", train_set, plan.train_images), ("validation", val_set, plan.val_images)):
        if len(images) != count or len(images.class_names) != plan.data_classes:
            raise DataError(
                f"data/{plan.data.name} has {len(images):,} {name} images of {len(images.class_names):,} classes, but "
                f"the plan counts with {count:,} of {plan.data_classes:,}; correct its facts or the files"
            )


def build_model(plan: Plan) -> nn.Module:
    """The plan's model with its first weights, on the CPU; they depend on the seed alone."""
    torch.manual_seed(derived_seed("weights", plan.seed))
    model: nn.Module = plan.model.create(plan.num_classes)
    return model
