"""The story of a run: open what the recipe names, find where it stands, train, leave the results."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from convrun import checkpoints
from convrun.contracts.data import ImageSet, notes_of
from convrun.contracts.logger import RunInfo
from convrun.display.screen import Screen
from convrun.distributed.group import Group
from convrun.distributed.meeting.agreement import check_agreement, data_hash
from convrun.distributed.stopping import AgreedStop
from convrun.errors import ConvrunError, DataError, Interrupted
from convrun.models.trial import check_takes_images
from convrun.plan import Plan, make_plan
from convrun.process.device import this_machine
from convrun.process.signals import StopRequest
from convrun.process.world import world_of
from convrun.recipe import Choice, Recipe
from convrun.run_folder import RunFolder
from convrun.text.lookalikes import apart, composed
from convrun.text.units import duration_text
from convrun.training.building import build_loop
from convrun.training.faults.advice import advising
from convrun.training.loop import Loop
from convrun.training.model import build_model, placed
from convrun.training.outcome import Outcome, outcome_text
from convrun.training.recording.contract import Recorder, RunFacts
from convrun.training.recording.quiet import QuietRecorder
from convrun.training.recording.recorder import RunRecorder
from convrun.training.resuming.finding import (
    Found,
    Resume,
    check_has_effect,
    find,
    find_for_all,
    is_finished,
    kept_micro_batch,
)
from convrun.training.resuming.schedule import schedule_changes
from convrun.training.state import Progress
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
        images = open_data(recipe.data)
        micro_batch = group.from_first(lambda: kept_micro_batch(recipe, folder, machine))
        plan = make_plan(recipe, machine, micro_batch=micro_batch)
        check_counts(plan, *images)
        check_agreement(group, {"recipe": recipe.hash, "data": data_hash(*images)})
        stop.stop_after_seconds = plan.stop_after_seconds
        model = build_model(plan)
        check_takes_images(
            model, plan.input_size, plan.model.name, num_classes=plan.num_classes, micro_batch=plan.micro_batch
        )
        init_text = load_first_weights(model, plan, images[0].class_names, folder, group)
        facts = RunFacts(recipe, plan, machine, folder, group, images, sum(p.numel() for p in model.parameters()))
        screen = screen or Screen()
        with _opened(facts, screen):
            say = partial(_say_and_log, screen, folder)  # rank 0's; the run's own record has not begun
            found = find_for_all(group, partial(find, facts, model, resume, allow_changes, say))
            if not found.changes and group.from_first(partial(is_finished, folder, plan, found.progress)):
                outcome = _outcome(folder, found.progress, was_finished=True)
            else:
                outcome = _train(facts, model, found, init_text, screen, stop)
            screen.record(outcome_text(recipe, outcome))
            return outcome


def _train(
    facts: RunFacts, model: nn.Module, found: Found, init_text: str, screen: Screen, stop: StopRequest
) -> Outcome:
    """Trains from where the run stands to its end; every way out leaves a true status.json."""
    plan, folder, group, start = facts.plan, facts.folder, facts.group, found.progress
    notes = group.from_first(partial(_notes_on, facts, found))
    # Not before: the device may be full of another run that trains in this folder, and a finished run needs none.
    model = placed(model, plan, torch.device(facts.machine.device or "cpu"))
    recorder = (RunRecorder if group.is_first else QuietRecorder)(facts, screen, start.step)
    stop.begin()  # from here on a signal lets the step end, and the state is saved
    with _ending_well(recorder, facts):
        recorder.begin(found.changes, [init_text, *(f"note: {line}" for line in notes_of(*facts.images)), *notes])
        info = run_info(facts, start, screen)
        loop = build_loop(plan, model, facts.images, info, recorder, AgreedStop(stop, group), group)
        if found.content is not None:
            loop.state.restore(found.content, found.path)
            found.content.clear()  # its tensors would take memory as long as the run lasts
        recorder.open_loggers(info)
        with advising(recorder, plan, folder.path):
            loop.run()
        recorder.finish(loop.state)
        check_is_complete(loop, stop, start.step, folder)
        recorder.leave_results(loop.state)
    return _outcome(folder, loop.progress)


@contextlib.contextmanager
def _opened(facts: RunFacts, screen: Screen) -> Iterator[None]:
    """Inside, rank 0 holds the run folder; what ends the run is in its train.log."""
    with facts.folder.opened(screen.say) if facts.group.is_first else contextlib.nullcontext():
        try:
            yield
        except ConvrunError as error:
            screen.record(str(error))
            raise
        finally:
            screen.close()


@contextlib.contextmanager
def _ending_well(recorder: Recorder, facts: RunFacts) -> Iterator[None]:
    """Whatever ends the run inside is recorded."""
    try:
        yield
    except KeyboardInterrupt as error:  # a second Ctrl-C
        recorder.fail(error)
        is_over = recorder.step >= facts.plan.total_steps
        where = "after the last step" if is_over else f"in the midst of step {recorder.step + 1}"
        command = go_on(facts.folder)
        raise Interrupted(f"stopped at once, {where}; go on from the last checkpoint with: {command}") from error
    except BaseException as error:
        recorder.fail(error)
        raise


def _say_and_log(screen: Screen, folder: RunFolder, text: str) -> None:
    screen.log_to(folder.path / "train.log")
    screen.say(text)


def _notes_on(facts: RunFacts, found: Found) -> list[str]:
    """What allowed changes do to the schedule; raises RunFolderError if there is nothing that they could change."""
    notes = schedule_changes(facts.folder, facts.plan, facts.machine, found.changes, found.progress.step)
    if found.changes:
        check_has_effect(facts.folder, facts.plan, found.progress, found.changes)
    return notes


def _outcome(folder: RunFolder, progress: Progress, *, was_finished: bool = False) -> Outcome:
    top1 = progress.best[0][0] if progress.best else None
    because = "" if was_finished else progress.stopped_because
    return Outcome(folder.path, top1, progress.step, was_finished, because)


def run_info(facts: RunFacts, progress: Progress, screen: Screen) -> RunInfo:
    """What loggers and callbacks are told of the run."""
    plan = facts.plan
    return RunInfo(
        name=plan.name,
        folder=facts.folder.path,
        recipe=facts.recipe.resolved(),
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        start_step=progress.step,
        screen=screen,
        evaluated_step=progress.evaluated_step,
        report=plan.report,
        best_top1=progress.best[0][0] if progress.best else None,
    )


def check_is_complete(loop: Loop, stop: StopRequest, start_step: int, folder: RunFolder) -> None:
    """Raises what was asked for if steps or the last evaluation are left; all is saved.

    Args:
        loop: as it ended.
        stop: what may have asked for it.
        start_step: where this start began.
        folder: of the run.
    """
    plan, progress = loop.plan, loop.progress
    left = plan.total_steps - progress.step
    if progress.stopped_because or not (left or loop.is_evaluation_due()):
        return
    if stop.signal is None and progress.step == start_step:
        # Started again by a scheduler, it would get no further, for ever.
        raise ConvrunError(
            f"training.stop_after ({duration_text(plan.stop_after_seconds or 0)}) was over before this start "
            f"had done a step; give it longer: {go_on(folder)} training.stop_after=..."
        )
    what = f"{left} to go" if left else "its evaluation to go"
    raise stop.error(
        f"stopped after step {progress.step} of {plan.total_steps} ({what}), all saved; go on with: {go_on(folder)}"
    )


def go_on(folder: RunFolder) -> str:
    """The command that goes on with a run, to paste."""
    return f"convrun run {shlex.quote(str(folder.path))}"


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
    """Raises DataError if the data are not what their component told the plan, or the splits name other classes."""
    for name, images, count in (("training", train_set, plan.train_images), ("validation", val_set, plan.val_images)):
        if len(images) != count or len(images.class_names) != plan.data_classes:
            raise DataError(
                f"data/{plan.data.name} has {len(images):,} {name} images of {len(images.class_names):,} classes, but "
                f"the plan counts with {count:,} of {plan.data_classes:,}; correct its facts or the files"
            )
    # Labels are positions in this list, so the same label must be the same class in both.
    pairs = zip(train_set.class_names, val_set.class_names, strict=True)
    for label, (in_train, in_val) in enumerate(pairs):
        if composed(in_train) != composed(in_val):
            names = apart(in_train, in_val)
            raise DataError(
                f"data/{plan.data.name}: label {label} is {names[0]} in train, but {names[1]} in val; both splits must "
                "have the class_names of train"
            )


def load_first_weights(
    model: nn.Module, plan: Plan, class_names: Sequence[str], folder: RunFolder, group: Group
) -> str:
    """Loads what `init` names into a new run's model, on the CPU; returns a line about it."""
    # A run that goes on has its weights in the checkpoint; the file it began with may be gone by then.
    is_new = group.from_first(lambda: not checkpoints.steps_in(folder.checkpoints))
    if not is_new or plan.init is None:
        return ""
    with group.one_of_each_node_first():  # it may have to be downloaded
        return load_initial(model, plan.init, plan.num_classes, class_names)
