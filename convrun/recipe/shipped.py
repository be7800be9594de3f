"""Finds a recipe by its path, or by the name of one that ships with convrun."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from convrun.errors import RunFolderError, UsageError
from convrun.files.leftovers import is_leftover
from convrun.text.wording import nearest

_PACKAGE = Path(__file__).resolve().parent.parent
# In an installed package the recipes lie inside it; in a checkout beside it.
FOLDER = next((f for f in (_PACKAGE / "recipes", _PACKAGE.parent / "recipes") if f.is_dir()), _PACKAGE / "recipes")


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every shipped recipe. Files that start with `_` are only parents of recipes."""
    return {name: path for name, path in _shipped_files().items() if not name.startswith("_")}


def _shipped_files() -> dict[str, Path]:
    folder, here = FOLDER, os.getcwd()  # noqa: PTH109 - a third of the cost
    if folder.is_relative_to(here):
        folder = folder.relative_to(here)  # messages show it as the user would type it
    return {p.stem: p for p in sorted(folder.glob("*.yaml")) if not is_leftover(p.name)}


def find_recipe(text: str) -> Path:
    """The file that a path or a shipped name stands for.

    Raises:
        UsageError: there is none; names the nearest shipped recipe.
    """
    path = Path(text)
    if os.path.isdir(text) and os.path.isfile(path / "recipe.yaml"):  # noqa: PTH112, PTH113 - these take any text
        return path / "recipe.yaml"
    if os.path.exists(text) and not os.path.isdir(text):  # noqa: PTH110, PTH112
        return path
    names = shipped_recipes()
    if text in names:
        return names[text]
    if os.path.isdir(text):  # noqa: PTH112
        raise UsageError(f"{text} is a folder without a recipe.yaml; name a file, or a folder that a run left")
    raise _unknown(text, f"there is no file {text}", names)


def find_parent(text: str, folder: Path) -> Path:
    """The file that `extends: text` stands for in a recipe in `folder`: a path, a neighbour's name or a shipped name.

    Raises:
        UsageError: there is none; names the nearest.
    """
    is_path = "/" in text or text.endswith((".yaml", ".yml"))
    parent = folder / (text if is_path else f"{text}.yaml")
    if os.path.isfile(parent):  # noqa: PTH113
        return parent
    if is_path:
        raise UsageError(f"there is no file {parent}")
    names = _shipped_files()
    if text in names:
        return names[text]
    raise _unknown(
        text,
        f"there is no file {parent}",
        {*names, *(p.stem for p in folder.glob("*.yaml") if not is_leftover(p.name))},
    )


def _unknown(text: str, what: str, names: Iterable[str]) -> UsageError:
    guess = nearest(Path(text).stem, names)
    hint = f"did you mean {guess}?" if guess else "convrun list recipes shows those that ship"
    return UsageError(f"{what} and no shipped recipe of that name; {hint}")


def copy_recipe(source: str, destination: Path | None) -> Path:
    """Copies a recipe's file; returns the copy's path.

    The copy still finds a shipped parent by its name, and names the schema by its full path, for editors.

    Raises:
        UsageError: there is no such recipe, or the destination exists.
        RunFolderError: the destination cannot be written.
    """
    path = find_recipe(source)
    target = destination or Path(f"{path.stem}.yaml")
    if target.is_dir():
        target = target / f"{path.stem}.yaml"
    try:
        with target.open("xb") as file:
            schema = f"$schema={(FOLDER / 'recipe.schema.json').resolve()}"
            file.write(path.read_bytes().replace(b"$schema=recipe.schema.json", schema.encode(), 1))
    except FileExistsError:
        raise UsageError(f"{target} exists already; name another destination") from None
    except OSError as error:
        raise RunFolderError(f"{target} cannot be written: {error.strerror}; name another destination") from None
    return target
