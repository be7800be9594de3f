"""Whether a run may go on: the recipe must be the one it began with, but for what changes no result."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from convrun import checkpoints
from convrun.errors import CheckpointError, RunFolderError
from convrun.files.leftovers import is_leftover
from convrun.recipe import Recipe
from convrun.recipe.consistency import differences
from convrun.run_folder import RunFolder
from convrun.run_folder.environment import allowed_before
from convrun.text.lookalikes import composed_names, look_alikes, pairs_text
from convrun.text.wording import listed, nearest

# These change neither weights nor metrics.
FREE = (
    # The cures for data that are broken; where nothing is broken they change nothing.
    *("data.bad_images", "data.bad_images_limit", "data.retries", "data.timeout"),
    # The same for non-finite numbers.
    *("training.nonfinite", "training.nonfinite_limit"),
    *("name", "summary", "notes", "expect", "launcher", "data.workers", "data.prefetch", "data.cache"),
    *("checkpoints", "logging.to", "training.stop_after"),
    # As the number of processes: up to rounding (to bf16, where that is the precision) the run is the same.
    "distributed",
)


def check_unchanged(folder: RunFolder, recipe: Recipe, allowed: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """The changes since the run began that were allowed by name.

    Raises:
        RunFolderError: a key differs that is not allowed or never can be, or an allowed key never differed.
    """
    try:
        before = yaml.safe_load(folder.recipe.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("it is no map")
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise RunFolderError(
            f"{folder.recipe} cannot be read ({reason}), so nobody knows what this run is; train in another folder"
        ) from error
    changes = [c for c in differences(before, recipe.resolved()) if not _is_among(c[0], FREE)]
    _refuse_other_batch(folder, changes)
    refused = [change for change in changes if not _is_among(change[0], allowed)]
    if refused:
        go_on = f"convrun run {shlex.quote(str(folder.path))}"
        lines = [f"  {key}: {old!r} before, {new!r} now" for key, old, new in refused]
        raise RunFolderError(
            f"the recipe is not the one that the run in {folder.path} began with:\n" + "\n".join(lines) + "\n"
            f"go on with the old recipe ({go_on}), train in another folder (--output), or allow it: "
            + " ".join(f"--allow-change {key}" for key, _, _ in refused)
        )
    # A command that is given once more, by hand or by a scheduler, allows what the run has taken over already.
    changed = [change[0] for change in changes] + (allowed_before(folder) or [])
    unused = [key for key in allowed if not any(_is_among(name, [key]) for name in changed)]
    if unused:
        guess = nearest(unused[0], changed)
        raise RunFolderError(
            f"--allow-change {unused[0]}: nothing of that name has changed"
            + (f"; did you mean {guess}?" if guess else "")
        )
    return changes


def _refuse_other_batch(folder: RunFolder, changes: list[tuple[str, Any, Any]]) -> None:
    """A step is so many images: with another number, the steps done, the epoch and the schedule mean nothing more."""
    for key, old, new in changes:
        if key == "training.batch_size":
            command = checkpoints.begin_from(folder.checkpoints / "latest", f"{key}={new}")
            raise RunFolderError(
                f"training.batch_size: {old} before, {new} now; it cannot change in the midst of a run, which counts "
                f"its images, epochs and schedule in steps of {old} images. Keep it, or begin another run from this "
                f"one's weights: {command}"
            )


def check_same_data(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises CheckpointError if the data are others than those a checkpoint was trained on, though the recipe is not.

    A class more or less gives every label behind it another meaning, and an image more or less another order.
    """
    for what in before:
        is_names = isinstance(before[what], list)
        if before[what] == now[what] or (is_names and composed_names(before[what]) == composed_names(now[what])):
            continue
        if is_names:
            difference = class_changes(before[what], now[what])
        else:
            difference = f"{what} was {before[what]:,}, now it is {now[what]:,}"
        raise CheckpointError(
            f"the data have changed since {path} was saved: {difference}; restore them, or train in another folder "
            "(--output)"
        )


def class_changes(before: Sequence[str], now: Sequence[str]) -> str:
    """How the classes have changed, in words; empty if they have not."""
    before, now = composed_names(before), composed_names(now)
    if before == now:
        return ""
    known, present = set(before), set(now)
    gone, new = [name for name in before if name not in present], [name for name in now if name not in known]
    if not gone and not new:
        pairs = itertools.zip_longest(before, now)
        label, (was, is_now) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        return f"class {label} was {was!r}, now it is {is_now!r}"
    why = "".join(f" ({name!r} is a name that systems and programs leave behind, so it is no class any more)"
                  for name in [name for name in gone if is_leftover(name, is_folder=True)][:1])  # fmt: skip
    parts = [f"{what}: {listed([repr(name) for name in names], 5)}"
             for what, names in (("removed", gone), ("added", new)) if names]  # fmt: skip
    alike = pairs_text(look_alikes(new, gone), "now", "before")
    return f"{len(before):,} classes before, {len(now):,} now; {'; '.join(parts)}{why}{alike and f' ({alike})'}"


def drop_what_changed(saved: dict[str, Any], changed: Sequence[str]) -> None:
    """Takes out of a checkpoint what belongs to an older recipe, after changes that were allowed.

    Raises:
        CheckpointError: the optimizer is another one; it could make nothing of the moments.
    """
    if "optimizer.name" in changed:
        raise CheckpointError(
            "the run cannot go on with another optimizer: the checkpoint holds the moments of its own; "
            "train in another folder (--output), from its weights if you like"
        )
    saved["state"]["stopped_because"] = ""
    if any(_is_among(key, ["callbacks"]) for key in changed):
        saved["state"]["callbacks"] = None


def _is_among(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(name + ".") for name in names)
