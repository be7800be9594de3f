"""Whether a run may go on: the recipe must be the one it began with, but for what changes no number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from convrun.errors import RunFolderError
from convrun.recipe import Recipe
from convrun.recipe.consistency import differences
from convrun.recipe.problems import nearest
from convrun.run_folder import RunFolder

# These change neither weights nor metrics.
FREE = ("name", "summary", "notes", "expect", "launcher", "data.workers", "data.prefetch", "checkpoints", "logging.to")


def check_unchanged(folder: RunFolder, recipe: Recipe, allowed: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """The changes since the run began that were allowed by name.

    Raises:
        RunFolderError: a key differs that is not allowed, or an allowed key that does not differ.
    """
    try:
        before = yaml.safe_load(folder.recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunFolderError(
            f"{folder.recipe} cannot be read ({error}), so nobody knows what this run is; train in another folder"
        ) from error
    changes = [c for c in differences(before, recipe.resolved()) if not _is_among(c[0], FREE)]
    refused = [change for change in changes if not _is_among(change[0], allowed)]
    if refused:
        lines = [f"  {key}: {old!r} before, {new!r} now" for key, old, new in refused]
        raise RunFolderError(
            f"the recipe is not the one that the run in {folder.path} began with:\n" + "\n".join(lines) + "\n"
            "go on with the old recipe (convrun run FOLDER), train in another folder (--output), or allow it: "
            + " ".join(f"--allow-change {key}" for key, _, _ in refused)
        )
    unused = [key for key in allowed if not any(_is_among(change[0], [key]) for change in changes)]
    if unused:
        guess = nearest(unused[0], [change[0] for change in changes])
        raise RunFolderError(
            f"--allow-change {unused[0]}: nothing of that name has changed"
            + (f"; did you mean {guess}?" if guess else "")
        )
    return changes


def _is_among(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(name + ".") for name in names)
