"""A resolved recipe as YAML, and where each of its values came from."""

from __future__ import annotations

import os
from typing import Any

import yaml

from convrun.recipe import Recipe
from convrun.recipe.scalars import scalar
from convrun.text.secrets import masked


class _Dumper(yaml.SafeDumper):
    """Lists and maps that fit on a line stay on one."""


def _represent_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flow = all(not isinstance(item, dict | list) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # PyYAML quotes what YAML 1.1 would misread; `1e3` and `0o17` are text there, and numbers for us.
    style = "'" if not isinstance(scalar(value), str) else "|" if "\n" in value else None
    if any(line_break in value for line_break in "\x85\u2028\u2029"):
        style = '"'  # the other styles write these as they are, and a reader folds them
    if "${" in value and style is None:
        style = '"'  # in quotes, what is filled in stays text, whatever it looks like
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)


def recipe_yaml(recipe: Recipe) -> str:
    """The recipe as resolved: a file that can be run by itself."""
    return to_yaml(recipe.resolved())


def to_yaml(data: dict[str, Any]) -> str:
    """Plain data as YAML that YAML 1.1 and 1.2 read alike."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return text


def origins_text(recipe: Recipe) -> str:
    """Every value of the resolved recipe with its origin: file:line:column, an override, or the default."""
    rows = list(_rows(recipe, recipe.resolved(), ()))
    width = min(60, max(len(f"{path}: {value}") for path, value, _ in rows))
    return "\n".join(f"{f'{path}: {value}':<{width}}  # {origin}" for path, value, origin in rows)


def _rows(recipe: Recipe, value: Any, path: tuple[str | int, ...]) -> list[tuple[str, str, str]]:
    below: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        below = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        below = list(enumerate(value))
    if below:
        return [row for key, item in below for row in _rows(recipe, item, (*path, key))]
    node = recipe.tree.at(path)
    if node is None:
        origin = "default"
    elif node.place.source == "override":
        origin = f"override {masked(node.place.text)}"
    else:
        file = node.place.source
        shown = os.path.relpath(file) if len(os.path.relpath(file)) < len(file) else file
        origin = f"{shown}:{node.place.line}:{node.place.column}"
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    return [(".".join(map(str, path)), text, origin)]
