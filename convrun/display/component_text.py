"""Components as text: `list components`, `describe`."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from convrun.contracts import KINDS
from convrun.keys import Key
from convrun.keys.type_text import type_text
from convrun.recipe.recipe import plain
from convrun.recipe.scalars import scalar
from convrun.registry import Component


def component_row(component: Component) -> dict[str, str]:
    """What a list shows of a component."""
    return {
        "name": component.name,
        "kind": component.kind,
        "origin": component.provider,
        "summary": component.summary,
    }


def description(component: Component) -> str:
    """A component: what it is, where it is defined, its keys, and a snippet to paste."""
    lines = [f"{component.kind}/{component.name}", "", component.summary, "", f"defined in {component.origin}"]
    keys = list(component.keys.keys.values())
    if keys:
        lines += ["", "keys", *key_lines(keys)]
    return "\n".join([*lines, "", "in a recipe", *("  " + line for line in snippet(component).splitlines())])


def key_lines(keys: list[Key]) -> list[str]:
    """Two lines a key: its name, type and default, then what it means."""
    names = max(len(key.name) for key in keys)
    types = max(len(type_text(key.annotation)) for key in keys)
    lines = []
    for key in keys:
        default = "required" if key.is_required else f"default {value_text(key.default)}"
        lines.append(f"  {key.name:<{names}}  {type_text(key.annotation):<{types}}  {default}")
        if key.meaning:
            lines.append(f"  {'':<{names}}  {key.meaning}")
    return lines


def snippet(component: Component) -> str:
    """The component as a recipe would name it, required keys left to fill in."""
    name = component.name.replace("*", "NAME")
    inside = [f"name: {name}"]
    inside += [f"{k.name}: {'...' if k.is_required else value_text(k.default)}" for k in component.own_keys]
    section = KINDS[component.kind].section
    indent = "  " * section.count(".")
    head = section.replace(".", ":\n  ") + ":"
    if KINDS[component.kind].is_list:
        return f"{head}\n{indent}  - {{{', '.join(inside)}}}"
    return f"{head} {{{', '.join(inside)}}}"


def description_data(component: Component) -> dict[str, Any]:
    """The same as JSON-able data."""
    keys = [
        {
            "name": key.name,
            "type": type_text(key.annotation),
            "required": key.is_required,
            "default": None if key.is_required else plain(key.default),
            "meaning": key.meaning,
        }
        for key in component.keys.keys.values()
    ]
    return {
        **component_row(component),
        "source": component.source,
        "documentation": inspect.getdoc(component.build) or "",
        "keys": keys,
        "snippet": snippet(component),
    }


def value_text(value: Any) -> str:
    """A value as YAML 1.2 on one line; JSON is, and plain words need no quotes."""
    is_word = isinstance(value, str) and re.fullmatch(r"[\w./-]+", value) and isinstance(scalar(value), str)
    return str(value) if is_word else json.dumps(plain(value), ensure_ascii=False)
