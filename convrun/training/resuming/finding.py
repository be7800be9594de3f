"""The state a run goes on from: that of the newest checkpoint that is whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from convrun import checkpoints
from convrun.distributed.group import Group
from convrun.errors import CheckpointError, DamagedCheckpoint, RunFolderError, UsageError
from convrun.plan import Machine, Plan
from convrun.plan.arithmetic import divisors
from convrun.recipe import Recipe
from convrun.recipe.consistency import differences
from convrun.run_folder import RunFolder
from convrun.run_folder.environment import allowed_before
from convrun.text.wording import listed
from convrun.training.recording.contract import RunFacts
from convrun.training.resuming.changes import FREE, check_same_data, check_unchanged, class_changes, drop_what_changed
from convrun.training.state import Progress

Resume = Literal["auto", "never", "must"]
Changes = list[tuple[str, Any, Any]]


@dataclasses.dataclass(frozen=True)
class Found:
    """What a start finds of the run.

    Attributes:
        content: of the checkpoint; None: the run begins.
        path: the checkpoint's file, or the run folder.
        changes: in the recipe since the run began, all of them allowed: (key, before, now).
    """

    content: dict[str, Any] | None
    path: Path
    changes: Changes = dataclasses.field(default_factory=list)

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        progress = Progress()
        if self.content is not None:
            progress.load_state_dict(self.content["state"] | {"callbacks": []})
        return progress


def find_for_all(group: Group, find: Callable[[], Found]) -> Found:
    """What rank 0 finds, checks and may have to put aside, on every rank.

    The run folder is on a disk that all nodes see, so the others read the file: sending it round would hold another
    copy of weights, averages and moments in every rank's memory.
    """
    if group.size == 1:
        return find()
    found = find() if group.is_first else None
    told = group.from_first(lambda: (found.path, found.changes, found.content is None) if found else None)
    if found is not None:
        return found
    assert told is not None
    path, changes, is_new = told
    content = None if is_new else checkpoints.load(path)
    if content is not None and changes:
        drop_what_changed(content, [key for key, _, _ in changes])
    return Found(content, path, changes)


def find(
    facts: RunFacts, model: nn.Module, resume: Resume, allow_changes: Sequence[str], say: Callable[[str], None]
) -> Found:
    """What the run goes on from, checked against the recipe, the data and the model.

    Args:
        facts: what the run is now.
        model: whose names and shapes a checkpoint must have.
        resume: whether there may, or must, be something to go on from.
        allow_changes: recipe keys that may differ from those the run began with.
        say: shows a line to the user.

    Raises:
        RunFolderError: `resume` forbids it, or the recipe has changed.
        CheckpointError: nothing is left of what was saved, or it does not fit.
    """
    folder = facts.folder
    if not has_saved(folder):
        if resume == "must":
            raise RunFolderError(f"--resume must: {folder.path} holds no checkpoint to go on from")
        return Found(None, folder.path)
    if resume == "never":
        raise RunFolderError(f"--resume never: {folder.path} holds a run already; choose another folder with --output")
    changes = check_unchanged(folder, facts.recipe, allow_changes)
    content, path = newest_good(folder, say)
    check_fits(content, path, facts, model, changes)
    if changes:
        drop_what_changed(content, [key for key, _, _ in changes])
    return Found(content, path, changes)


def has_saved(folder: RunFolder) -> bool:
    """Whether the run has ever saved a checkpoint, be it there still or not."""
    found = checkpoints.steps_in(folder.checkpoints) or checkpoints.damaged_in(folder.checkpoints)
    return bool(found) or _step_said_to_be_saved(folder) > 0


def _step_said_to_be_saved(folder: RunFolder) -> int:
    """What status.json says of the newest checkpoint; 0 if nothing."""
    status = folder.read_json("status.json")
    step = status.get("saved_step") if isinstance(status, dict) else None
    return step if type(step) is int else 0


def newest_good(folder: RunFolder, say: Callable[[str], None]) -> tuple[dict[str, Any], Path]:
    """The newest checkpoint that is whole. Damaged ones are put aside, and said.

    Raises:
        CheckpointError: none is left, or one cannot be read for another reason than damage.
    """
    steps = checkpoints.steps_in(folder.checkpoints)
    for step in reversed(steps):
        path = checkpoints.path_of(folder.checkpoints, step)
        try:
            content = checkpoints.load(path)
        except DamagedCheckpoint as error:
            say(f"{error}; it is now called {checkpoints.set_aside(path).name}, and the one before it is tried")
            continue
        _point_latest(path)
        folder.saved_step = step
        return content, path
    last = max([*steps, *checkpoints.damaged_in(folder.checkpoints), _step_said_to_be_saved(folder)])
    damaged = checkpoints.damaged_in(folder.checkpoints)
    why = "all are damaged (*.pt.damaged)" if damaged else "the files are gone"
    raise CheckpointError(
        f"no checkpoint is left in {folder.checkpoints}, though the run had saved step {last}: {why}; put one back "
        "from a copy, or start over in another folder (--output)"
    )


def _point_latest(path: Path) -> None:
    """Mends the link if a kill, or damage, has left another one."""
    latest = path.parent / "latest"
    try:
        if not latest.is_symlink() or latest.readlink() != Path(path.name):
            checkpoints.point(path.parent, "latest", path)
    except OSError as error:
        raise RunFolderError(f"{path.parent / 'latest'} cannot be written: {error.strerror or error}") from error


def check_fits(content: dict[str, Any], path: Path, facts: RunFacts, model: nn.Module, changes: Changes) -> None:
    """Raises CheckpointError if a checkpoint belongs to another recipe, model or data set."""
    if missing := Progress.missing_in(content["state"]):
        raise CheckpointError(f"{path} does not fit the recipe: its state has no {missing[0]}; remove it")
    # Before the tensors: the head has an output a class, and other classes are not another model.
    if not any(key.split(".")[0] == "data" for key, _, _ in changes):
        check_same_data(path, content["data"], facts.data)
    check_head_has_classes(path, content, facts, model, changes)
    checkpoints.check_same_tensors(path, content["model"], model.state_dict())
    if checkpoints.path_of(path.parent, content["state"]["step"]) != path:
        raise CheckpointError(f"{path} holds the state after step {content['state']['step']}; give it its name back")
    check_same_recipe(content.get("recipe"), path, facts.folder, facts.recipe, [key for key, _, _ in changes])


def check_head_has_classes(
    path: Path, content: dict[str, Any], facts: RunFacts, model: nn.Module, changes: Changes
) -> None:
    """Raises CheckpointError if only tensors of as many outputs as classes differ, because the classes do."""
    before, now = content["data"]["class_names"], facts.data["class_names"]
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    saved = {name: tuple(tensor.shape) for name, tensor in content["model"].items()}
    differ = [name for name in shapes if saved.get(name) != shapes[name]]
    if not differ or saved.keys() != shapes.keys() or len(before) == len(now):
        return
    if all((len(before), *shapes[name][1:]) == saved[name] and shapes[name][0] == len(now) for name in differ):
        data = [f"{key}={json.dumps(new)}" for key, _, new in changes if key.partition(".")[0] == "data"]
        raise CheckpointError(
            f"the classes have changed since {path} was saved, and the model with them: "
            f"{class_changes(before, now)}; give back the data that the run began with, or begin another run from its "
            f"weights: {checkpoints.begin_from(path, *data, 'init.head=reinit')}"
        )


def check_same_recipe(before: Any, path: Path, folder: RunFolder, recipe: Recipe, allowed: Sequence[str]) -> None:
    """Raises CheckpointError if a checkpoint was saved by a run of another recipe, and copied here."""
    earlier = allowed_before(folder)
    if not isinstance(before, dict) or earlier is None:
        return  # nobody knows which changes were allowed
    known = [*FREE, *allowed, *earlier]
    others = [
        change
        for change in differences(before, recipe.resolved())
        if not any(change[0] == key or change[0].startswith(key + ".") for key in known)
    ]
    if others:
        key, old, new = others[0]
        raise CheckpointError(
            f"{path} was saved by another run: its {key} is {old!r}, here it is {new!r}; remove it to go on from the "
            "one before"
        )


def kept_micro_batch(recipe: Recipe, folder: RunFolder, machine: Machine) -> int | None:
    """What `training.micro_batch: auto` was when the run in a folder began; None if none has, or had another batch.

    `auto` depends on the number of processes, and what is mixed with what in a micro-batch, and its draws, depend on
    it. So it stays, on whatever devices the run goes on: it is the same run then.

    Raises:
        UsageError: the batch does not divide over the processes in micro-batches of this size.
    """
    batch, plan = recipe.training.batch_size, folder.read_json("plan.json")
    if recipe.training.micro_batch != "auto" or not isinstance(plan, dict) or not has_saved(folder):
        return None
    kept = plan.get("micro_batch")
    if type(kept) is not int or plan.get("batch_size") != batch or not plan.get("micro_batch_is_auto"):
        return None
    if kept < 1 or batch % (kept * machine.processes):
        workable = listed([str(count) for count in divisors(batch // max(1, kept))], 12)
        raise UsageError(
            f"the run in {folder.path} began with micro-batches of {kept} images, and a batch of {batch} cannot be cut "
            f"into them for {machine.processes} processes; go on with {workable} processes"
        )
    return kept


def is_finished(folder: RunFolder, plan: Plan, progress: Progress) -> bool:
    """Whether nothing is left to do: no step, and neither an evaluation nor the weights' export."""
    is_over = bool(progress.stopped_because) or progress.step >= plan.total_steps
    return is_over and (folder.read_json("status.json") or {}).get("state") == "finished"


def check_has_effect(folder: RunFolder, plan: Plan, progress: Progress, changes: Changes) -> None:
    """Raises RunFolderError if a run has nothing left to train or to evaluate, and a change does not make it longer.

    Its recipe.yaml would then tell of another training than the one that its weights come from.
    """
    is_as_long = (folder.read_json("status.json") or {}).get("total_steps") == plan.total_steps
    is_evaluation_due = plan.is_evaluated_after(progress.step) and progress.evaluated_step < progress.step
    if progress.step < plan.total_steps or is_evaluation_due or not is_as_long:
        return
    keys = ", ".join(key for key, _, _ in changes)
    command = checkpoints.begin_from(folder.checkpoints / "latest", f"{changes[0][0]}=...")
    raise RunFolderError(
        f"the run in {folder.path} has done its {plan.total_steps:,} steps: nothing is left to train with another "
        f"{keys}, and nothing was changed. Make it longer as well (training.epochs=... --allow-change "
        f"training.epochs), or begin another run from its weights: {command}"
    )
