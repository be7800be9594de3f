"""Where recipes are: a path, or the name of one that ships with convrun."""

from __future__ import annotations

from pathlib import Path

from convrun.errors import RunFolderError, UsageError
from convrun.recipe.problems import nearest

_PACKAGE = Path(__file__).resolve().parent.parent
# In an installed package the recipes lie inside it; in a checkout beside it.
FOLDER = next((f for f in (_PACKAGE / "recipes", _PACKAGE.parent / "recipes") if f.is_dir()), _PACKAGE / "recipes")
if FOLDER.is_relative_to(Path.cwd()):
    FOLDER = FOLDER.relative_to(Path.cwd())  # messages show it as the user would type it


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every shipped recipe. Files that start with `_` are parents of others, no recipes."""
    return {p.stem: p for p in sorted(FOLDER.glob("*.yaml")) if not p.name.startswith("_")}


def find_recipe(text: str, with_parents: bool = False) -> Path:
    """The file that a path or a shipped name stands for.

    Raises:
        UsageError: neither; says the nearest shipped name.
    """
    path = Path(text)
    if path.is_file():
        return path
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    names = shipped_recipes()
    if with_parents:
        names = names | {p.stem: p for p in FOLDER.glob("_*.yaml")}
    if text in names:
        return names[text]
    guess = nearest(path.stem, names)
    hint = f"did you mean {guess}?" if guess else "convrun list recipes shows those that ship"
    raise UsageError(f"there is no file {text} and no shipped recipe of that name; {hint}")


def copy_recipe(source: str, destination: Path | None) -> Path:
    """Copies a recipe's file; returns where to. A parent that ships is still found by name from there.

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
            file.write(path.read_bytes())
    except FileExistsError:
        raise UsageError(f"{target} exists already; name another destination") from None
    except OSError as error:
        raise RunFolderError(f"{target} cannot be written: {error.strerror}; name another destination") from None
    return target
