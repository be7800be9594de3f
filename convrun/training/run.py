"""A run from start to end: open what the recipe names, then let a session train it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from convrun import checkpoints
from convrun.contracts.data import ImageSet
from convrun.display.screen import Screen
from convrun.distributed.group import Group
from convrun.distributed.meeting.agreement import check_agreement, data_hash
from convrun.errors import ConvrunError, DataError
from convrun.plan import Plan, make_plan
from convrun.process.device import this_machine
from convrun.process.signals import StopRequest
from convrun.process.world import world_of
from convrun.randomness import derived_seed
from convrun.recipe import Choice, Recipe
from convrun.run_folder import RunFolder
from convrun.training.follower import Follower
from convrun.training.outcome import Outcome
from convrun.training.outcome_text import outcome_text
from convrun.training.resuming.finding import Resume
from convrun.training.resuming.micro_batch import kept_micro_batch
from convrun.training.session import Session
from convrun.weights.initial import load_initial


def run(
    recipe: Recipe,
    output: Path | None = None,
    *,
    resume: Resume = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    allow_changes: Sequence[str] = (),
    screen: Screen | None = None,
    stop: StopRequest | None = None,
    group: Group | None = None,
) -> Outcome:
    """Trains a recipe on this machine, from the start or from the folder's last checkpoint.

    Args:
        recipe: a checked recipe.
        output: the run folder; by default a new one under `runs/`.
        resume: `auto` goes on if the folder holds a checkpoint, `never` refuses then, `must` refuses otherwise.
        device: where to train.
        allow_changes: recipe keys that may differ from those the folder's run began with.
        screen: where lines go.
        stop: one that listens already; by default one that listens as long as this lasts.
        group: the processes that share the run, of which this is one; by default it is alone
            (`convrun.distributed.meeting.processes.in_each_process` makes several).

    Raises:
        ConvrunError: each with the exit code that fits (`convrun.errors`); the state is saved where there is any.
    """
    with StopRequest() if stop is None else contextlib.nullcontext(stop) as stop:
        group = group or alone()
        machine = this_machine(device, group.world)
        folder = RunFolder(group.from_first(lambda: folder_of(recipe, output, group).path))
        # What can fail without a folder fails before one is made: nothing half-written stays behind. The data come
        # first, because other data than the recipe's make the plan's numbers wrong in turn.
        train_set, val_set = open_data(recipe.data)
        micro_batch = group.from_first(lambda: kept_micro_batch(recipe, folder, machine))
        plan = make_plan(recipe, machine, micro_batch=micro_batch)
        check_counts(plan, train_set, val_set)
        check_agreement(group, {"recipe": recipe.hash, "data": data_hash(train_set, val_set)})
        stop.stop_after_seconds = plan.stop_after_seconds
        model = build_model(plan)
        # A run that goes on has its weights in the checkpoint; the file it began with may be gone by then.
        is_new = group.from_first(lambda: not checkpoints.steps_in(folder.checkpoints))
        init_text = ""
        if is_new and plan.init is not None:
            with group.one_of_each_node_first():  # it may have to be downloaded
                init_text = load_initial(model, plan.init, plan.num_classes)
        screen = screen or Screen()
        share = Session if group.is_first else Follower
        with folder.opened(screen.say) if group.is_first else contextlib.nullcontext():
            try:
                begun = share(recipe, plan, machine, folder, screen, stop, train_set, val_set, model, init_text, group)
                outcome = begun.go(resume, allow_changes)
                screen.record(outcome_text(recipe, outcome))
                return outcome
            except ConvrunError as error:
                screen.record(str(error))
                raise
            finally:
                screen.close()


def alone() -> Group:
    """This process alone; raises ConvrunError if a launcher has started it as one of several."""
    world = world_of(os.environ)
    if world.size > 1:
        raise ConvrunError(
            f"{world.launcher} started this as one of {world.size} processes, each of which would train alone: start "
            "it once, use convrun run, or see convrun.distributed.meeting.processes.in_each_process"
        )
    return Group(world)


def folder_of(recipe: Recipe, output: Path | None, group: Group) -> RunFolder:
    """The run folder; under a name that other processes understand as well, wherever they were started."""
    folder = RunFolder(output) if output is not None else RunFolder.named(recipe.name, recipe.hash)
    return folder if group.size == 1 else RunFolder(folder.path.absolute())


def open_data(data: Choice[Any]) -> tuple[ImageSet, ImageSet]:
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
