"""`${env:NAME}` and `${env:NAME:default}`, the only interpolation."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from convrun.recipe.problems import Path, Problem
from convrun.recipe.scalars import is_unicode, scalar
from convrun.recipe.tree import Node

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)(?::(.*))?", re.DOTALL)


def substituted(node: Node, problems: list[Problem], path: Path = (), env: Mapping[str, str] = os.environ) -> Node:
    """The tree with environment variables filled in; what cannot be is added to `problems`.

    An unquoted value is read again as a YAML scalar once it is filled in, a quoted one stays text.
    """
    if isinstance(node.value, dict):
        return node.with_value({k: substituted(n, problems, (*path, k), env) for k, n in node.value.items()})
    if isinstance(node.value, list):
        return node.with_value([substituted(n, problems, (*path, i), env) for i, n in enumerate(node.value)])
    if not isinstance(node.value, str) or "${" not in node.value:
        return node

    def fill(match: re.Match[str]) -> str:
        reference = _NAME.fullmatch(match[1])
        if not reference:
            cure = "write ${env:NAME} or ${env:NAME:default}"
            problems.append(Problem(node.place, path, f"{match[0]} means nothing", cure))
            return ""
        name, default = reference.groups()
        if name in env:
            if not is_unicode(env[name]):
                problems.append(Problem(node.place, path, f"the environment variable {name} is not UTF-8"))
            return env[name]
        if default is None:
            cure = f"export {name}=..., or set it here: {'.'.join(map(str, path))}=..."
            problems.append(Problem(node.place, path, f"the environment variable {name} is not set", cure))
        return default or ""

    text = _REFERENCE.sub(fill, node.value)
    if "${" in text and "${" in _REFERENCE.sub("", node.value):
        problems.append(Problem(node.place, path, "${ without its }", "write ${env:NAME}"))
    return node.with_value(scalar(text) if node.is_plain else text)
