"""`KEY=VALUE` from the command line, laid over a recipe's tree; errors point at the override."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from convrun.recipe.inheritance import LIST_SECTIONS, SINGLE_SECTIONS, with_names_expanded
from convrun.recipe.problems import Path, Place, Problem, RecipeError, dotted
from convrun.recipe.scalars import is_unicode
from convrun.recipe.tree import DEEPEST, Node, read_text
from convrun.text.wording import listed


def overridden(tree: Node, overrides: Sequence[str]) -> Node:
    """The tree with every override applied, in order.

    Raises:
        RecipeError: with a problem for each override that is not KEY=VALUE or whose path leads nowhere.
    """
    problems: list[Problem] = []
    for text in overrides:
        try:
            tree = with_names_expanded(_with(tree, _steps(text), _value(text), text))
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    return tree


def _place(text: str, column: int = 1) -> Place:
    return Place("override", 1, column, " ".join(text.splitlines()))


def _steps(text: str) -> list[str]:
    if not is_unicode(text):
        raise RecipeError([Problem(_place(text.encode("utf-8", "replace").decode()), (), "is not UTF-8")])
    key, equals, _ = text.partition("=")
    if not equals:
        raise RecipeError([Problem(_place(text), (), "is not KEY=VALUE", "for example optimizer.lr=1e-3")])
    steps = key.strip().split(".")
    if not all(steps):
        raise RecipeError([Problem(_place(text), (), f"{key!r} is not the path of a key", "for example optimizer.lr")])
    if len(steps) > DEEPEST:
        raise RecipeError([Problem(_place(text), (), f"nested deeper than {DEEPEST} levels")])
    if steps[0] == "extends":
        cure = "write a recipe that extends it, or name it in place of this one"
        raise RecipeError([Problem(_place(text), ("extends",), "cannot be overridden: the parent is read first", cure)])
    return steps


def _value(text: str) -> Node:
    key, _, written = text.partition("=")
    column = len(key) + 2
    if not written.strip():
        raise RecipeError([Problem(_place(text, column), (key,), "has no value", f"{key}=null unsets it")])
    try:
        node = read_text(written, "override")
    except RecipeError as error:
        problem = error.problems[0]
        raise RecipeError([Problem(_place(text, column), (key,), problem.message, problem.cure)]) from None
    return _moved(node, text, column)


def _moved(node: Node, text: str, column: int) -> Node:
    """The node with its places inside the override's own text."""

    def shifted(place: Place) -> Place:
        return _place(text, column + place.column - 1 if place.line == 1 else column)

    value = node.value
    if isinstance(value, dict):
        value = {key: _moved(item, text, column) for key, item in value.items()}
    elif isinstance(value, list):
        value = [_moved(item, text, column) for item in value]
    key_place = shifted(node.key_place) if node.key_place else _place(text)
    return dataclasses.replace(node, value=value, place=shifted(node.place), key_place=key_place)


def _with(node: Node, steps: list[str], new: Node, text: str, path: Path = ()) -> Node:
    step, rest = steps[0], steps[1:]
    below = (*path, step)
    if isinstance(node.value, list):
        index = _index(node, step, text, path)
        items = list(node.value)
        items[index] = _with(items[index], rest, new, text, (*path, index)) if rest else new
        return node.with_value(items)
    if not isinstance(node.value, dict):
        if node.value is None:
            node = node.with_value({})
        else:
            message = f"cannot be set: {dotted(path)} is {node.value!r}, not a map"
            raise RecipeError([Problem(_place(text), below, message)])
    value = dict(node.value)
    if not rest:
        value[step] = _replaced(value.get(step), new, dotted(below))
    else:
        inner = value.get(step, Node({}, _place(text), _place(text)))
        value[step] = _with(inner, rest, new, text, below)
    if rest == [] and step == "name" and dotted(path) in SINGLE_SECTIONS:
        old = node.value.get("name")
        if old is not None and old.value != new.value:
            value = {"name": new}
    return node.with_value(value)


def _replaced(old: Node | None, new: Node, section: str) -> Node:
    """`model=convnext_small` keeps the section's keys if it already has that name; any other value replaces it."""
    is_same_name = (
        section in SINGLE_SECTIONS
        and old is not None
        and isinstance(old.value, dict)
        and isinstance(new.value, str)
        and "name" in old.value
        and old.value["name"].value == new.value
    )
    return old if is_same_name and old is not None else new


def _index(node: Node, step: str, text: str, path: Path) -> int:
    names = [item.value["name"].value if isinstance(item.value, dict) and "name" in item.value else None
             for item in node.value]  # fmt: skip
    if step.isdecimal() and int(step) < len(names):
        return int(step)
    if step in names:
        return names.index(step)
    has = listed([f"{i} ({name})" if name else str(i) for i, name in enumerate(names)]) or "nothing"
    where = "the components of " if dotted(path) in LIST_SECTIONS else ""
    message = f"there is no {step!r} here: {where}{dotted(path)} are {has}"
    raise RecipeError([Problem(_place(text), (*path, step), message, f"{dotted(path)}=[...] sets the whole list")])
