"""`extends`: a recipe over its parent. Maps merge, lists replace, and another `name` replaces a section.

Keys that describe a single recipe (`name`, `summary`, `expect`, `notes`) are not inherited: a changed recipe must not
claim its parent's results.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from convrun.contracts import KINDS
from convrun.errors import UsageError
from convrun.recipe.problems import Problem, RecipeError
from convrun.recipe.shipped import find_parent
from convrun.recipe.tree import Node, read_file

NOT_INHERITED = ("name", "summary", "expect", "notes")
MOST_PARENTS = 20
SINGLE_SECTIONS = {kind.section: kind.name for kind in KINDS.values() if not kind.is_list}
LIST_SECTIONS = {kind.section: kind.name for kind in KINDS.values() if kind.is_list}


def read_with_parents(path: Path, shown_as: str | None = None) -> Node:
    """The tree of a recipe file with its parents merged in.

    Raises:
        RecipeError: as `read_file`, or a parent does not exist, or the parents form a circle.
    """
    return _read(path, shown_as, ())


def _read(path: Path, shown_as: str | None, children: tuple[Path, ...]) -> Node:
    tree = with_names_expanded(read_file(path, shown_as))
    extends = tree.value.get("extends")
    if extends is None:
        return tree
    if not isinstance(extends.value, str):
        problem = Problem(extends.place, ("extends",), "must be the name or the path of one recipe")
        raise RecipeError([problem])
    parent = _parent_path(extends, path)
    chain = (*children, path.resolve())
    if parent.resolve() in chain:
        names = " -> ".join(p.name for p in (*chain[chain.index(parent.resolve()) :], parent))
        raise RecipeError([Problem(extends.place, ("extends",), f"the recipe extends itself: {names}")])
    if len(chain) > MOST_PARENTS:
        raise RecipeError(
            [Problem(extends.place, ("extends",), f"more than {MOST_PARENTS} parents, one above another")]
        )
    inherited = _read(parent, None, chain)
    kept = {key: node for key, node in inherited.value.items() if key not in NOT_INHERITED}
    own = {key: node for key, node in tree.value.items() if key != "extends"}
    return merged(inherited.with_value(kept), tree.with_value(own))


def _parent_path(extends: Node, child: Path) -> Path:
    try:
        return find_parent(extends.value, child.parent)
    except UsageError as error:
        raise RecipeError([Problem(extends.place, ("extends",), str(error))]) from None


def merged(parent: Node, child: Node, path: tuple[str, ...] = ()) -> Node:
    """The child's values over the parent's."""
    if not (isinstance(parent.value, dict) and isinstance(child.value, dict)):
        return child
    if ".".join(path) in SINGLE_SECTIONS and _changes_name(parent, child):
        return child
    items = dict(parent.value)
    for key, node in child.value.items():
        items[key] = merged(items[key], node, (*path, key)) if key in items else node
    return dataclasses.replace(child, value=items)


def _changes_name(parent: Node, child: Node) -> bool:
    before, after = parent.value.get("name"), child.value.get("name")
    return after is not None and (before is None or before.value != after.value)


def with_names_expanded(tree: Node) -> Node:
    """A section that is only a name becomes a map with that name."""
    items = dict(tree.value)
    for section in SINGLE_SECTIONS:
        if section in items:
            items[section] = _named(items[section])
    for section in LIST_SECTIONS:
        top, _, below = section.partition(".")
        node = items.get(top)
        if node is None:
            continue
        if not below:
            items[top] = _items_named(node)
        elif isinstance(node.value, dict) and below in node.value:
            items[top] = node.with_value({**node.value, below: _items_named(node.value[below])})
    return tree.with_value(items)


def _items_named(node: Node) -> Node:
    return node.with_value([_named(item) for item in node.value]) if isinstance(node.value, list) else node


def _named(node: Node) -> Node:
    if not isinstance(node.value, str):
        return node
    return node.with_value({"name": dataclasses.replace(node, key_place=node.key_place or node.place)})
