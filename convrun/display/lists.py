"""What `list` and `describe` find, as rows, text and data."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any, Literal

from convrun.contracts import KINDS
from convrun.display.component_text import component_row, description, description_data
from convrun.display.kind_text import kind_data, kind_description
from convrun.errors import ConvrunError, UsageError
from convrun.plan import Machine, make_plan
from convrun.plugins import load_plugins
from convrun.recipe import load_recipe, shipped_recipes
from convrun.recipe.problems import RecipeError
from convrun.registry import Component, registry
from convrun.text.wording import nearest


def listed(
    what: Literal["components", "recipes"], pattern: str, kind: str | None, *, plugins: bool = True
) -> tuple[list[dict[str, str]], list[str]]:
    """Rows to print, and notes on plugins that failed.

    Raises:
        UsageError: an unknown kind.
    """
    if what == "recipes":
        wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
        return [recipe_row(path) for name, path in shipped_recipes().items() if fnmatch.fnmatch(name, wanted)], []
    if kind is not None:
        _check_kind(kind)
    if plugins:
        load_plugins(folder=Path("plugins"))
    rows = [component_row(component) for component in registry.all(kind, pattern)]
    return rows, [f"plugin {name} failed to import: {reason}" for name, reason in registry.failures.items()]


def recipe_row(path: Path) -> dict[str, str]:
    """What a list shows of a recipe: size, data, resolution, batch, length, expected result."""
    try:
        recipe = load_recipe(path, plugins=False)
        plan = make_plan(recipe, Machine())
    except (RecipeError, ConvrunError) as error:
        return {"name": path.stem, "model": "", "data": "", "input": "", "batch": "", "epochs": "", "top-1": "",
                "summary": f"cannot be planned here: {str(error).splitlines()[0]}"}  # fmt: skip
    parameters = plan.parameters()
    size = f" ({parameters / 1e6:.1f} M)" if parameters else ""
    return {
        "name": path.stem,
        "model": recipe.model.name + size,
        "data": recipe.data.name,
        "input": str(recipe.input_size),
        "batch": str(plan.training.batch_size),
        "epochs": str(plan.epochs),
        "top-1": f"{recipe.expect.top1:g}" if recipe.expect and recipe.expect.top1 is not None else "-",
        "summary": recipe.summary,
    }


def described(name: str, *, plugins: bool = True) -> tuple[str, dict[str, Any]]:
    """Text and data about a component or a kind.

    Raises:
        UsageError: nothing has this name, or several kinds have a component of this name.
    """
    if plugins:
        load_plugins(folder=Path("plugins"))
    if name in KINDS:
        kind = KINDS[name]
        names = [component.name for component in registry.all(name)]
        return kind_description(kind, names), kind_data(kind, names)
    component = _component(name)
    return description(component), description_data(component)


def _component(name: str) -> Component:
    kind, slash, rest = name.partition("/")
    if slash and kind in KINDS:
        return registry.find_family(kind, rest) if rest.endswith("/*") else registry.find(kind, rest)
    found = [c for c in registry.all() if c.name == name or (c.is_family and name.startswith(c.name[:-1]))]
    kinds = dict.fromkeys(component.kind for component in found)
    if len(kinds) == 1:
        return _component(f"{found[0].kind}/{name}")
    if found:
        raise UsageError(
            f"several kinds have a component {name}: {', '.join(f'{kind}/{name}' for kind in kinds)}; name one"
        )
    guess = nearest(name, [f"{c.kind}/{c.name}" for c in registry.all()] + [c.name for c in registry.all()])
    hint = f"did you mean {guess}?" if guess else "convrun list components shows all"
    raise UsageError(f"there is no component {name}; {hint}")


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        guess = nearest(kind, KINDS)
        hint = f"did you mean {guess}?" if guess else f"the kinds are {', '.join(KINDS)}"
        raise UsageError(f"there is no kind of component named {kind}; {hint}")
