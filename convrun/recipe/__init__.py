"""Recipes: from a YAML file (and overrides) to a checked `Recipe`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from convrun.errors import UsageError
from convrun.plugins import load_plugins
from convrun.recipe.check import checked
from convrun.recipe.inheritance import read_with_parents
from convrun.recipe.overrides import overridden
from convrun.recipe.problems import Problem, RecipeError
from convrun.recipe.recipe import Choice, Recipe
from convrun.recipe.shipped import find_recipe, shipped_recipes
from convrun.recipe.substitution import substituted
from convrun.recipe.tree import Node

__all__ = [
    "Choice",
    "Recipe",
    "find_recipe",
    "load_plugins_of",
    "load_recipe",
    "one_recipe",
    "shipped_recipes",
    "split_arguments",
]


def load_recipe(source: str | Path, overrides: Sequence[str] = (), *, plugins: bool = True) -> Recipe:
    """Reads and checks a recipe.

    Args:
        source: a path, or the name of a shipped recipe.
        overrides: `KEY=VALUE` strings, laid over it in order.
        plugins: whether plugins are imported first.

    Raises:
        UsageError: there is no such recipe.
        RecipeError: every problem of the recipe and the overrides.
    """
    path = find_recipe(str(source))
    tree = overridden(read_with_parents(path), overrides)
    problems: list[Problem] = []
    tree = substituted(tree, problems)
    if problems:
        raise RecipeError(problems)
    tree = _with_plugin_paths(tree)
    if plugins:
        load_plugins_of(tree)
    return checked(tree, path)


def load_plugins_of(tree: Node) -> None:
    """Imports the plugins that a recipe lists, those in ./plugins, and the installed ones."""
    load_plugins(_listed_plugins(_with_plugin_paths(tree)), Path("plugins"))


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The recipes (./recipe.yaml if none) and the overrides (KEY=VALUE) among a verb's arguments."""
    overrides = [a for a in arguments if "=" in a and not os.path.exists(a)]  # noqa: PTH110 - takes any text
    return [a for a in arguments if a not in overrides] or ["recipe.yaml"], overrides


def one_recipe(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The recipe and the overrides among the arguments of a verb that takes one recipe.

    Raises:
        UsageError: there are several recipes.
    """
    sources, overrides = split_arguments(arguments)
    if len(sources) > 1:
        raise UsageError(f"one recipe at a time, got {', '.join(sources)}; an override is KEY=VALUE")
    return sources[0], overrides


def _with_plugin_paths(tree: Node) -> Node:
    """The tree with plugin files as absolute paths: relative ones count from the file that names them."""
    plugins = tree.value.get("plugins")
    if plugins is None or not isinstance(plugins.value, list):
        return tree
    items = []
    for item in plugins.value:
        if isinstance(item.value, str) and item.value.endswith(".py") and "\0" not in item.value:
            home = Path() if item.place.source == "override" else Path(item.place.source).parent
            item = item.with_value(str((home / item.value).resolve()))
        items.append(item)
    return tree.with_value({**tree.value, "plugins": plugins.with_value(items)})


def _listed_plugins(tree: Node) -> list[str]:
    plugins = tree.value.get("plugins")
    values = plugins.plain() if plugins is not None else None
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
