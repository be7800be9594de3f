"""`${env:NAME}` and `${env:NAME:default}`, the only interpolation.

A variable whose name says that it holds a secret (`convrun.text.secrets`) is used but never saved: a saved recipe holds
the reference instead.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

from convrun.recipe.problems import Path, Problem
from convrun.recipe.scalars import is_unicode, scalar
from convrun.recipe.tree import Node
from convrun.text.secrets import is_secret_name

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)(?::(.*))?", re.DOTALL)


def substituted(node: Node, problems: list[Problem], path: Path = (), env: Mapping[str, str] = os.environ) -> Node:
    """The tree with environment variables filled in; a reference that cannot be filled in is added to `problems`.

    An unquoted value is read again as a YAML scalar once it is filled in; a quoted one stays text.
    """
    if isinstance(node.value, dict):
        return node.with_value({k: substituted(n, problems, (*path, k), env) for k, n in node.value.items()})
    if isinstance(node.value, list):
        return node.with_value([substituted(n, problems, (*path, i), env) for i, n in enumerate(node.value)])
    if not isinstance(node.value, str) or "${" not in node.value:
        return node

    secrets: list[str] = []

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
            secrets.extend([name] if is_secret_name(name) else [])
            return env[name]
        if default is None:
            cure = f"export {name}=..., or set it here: {'.'.join(map(str, path))}=..."
            problems.append(Problem(node.place, path, f"the environment variable {name} is not set", cure))
        return default or ""

    text = _REFERENCE.sub(fill, node.value)
    if "${" in text and "${" in _REFERENCE.sub("", node.value):
        problems.append(Problem(node.place, path, "${ without its }", "write ${env:NAME}"))
    value = scalar(text) if node.is_plain else text
    is_secret = bool(secrets) and isinstance(value, str)  # numbers, true and false count as no secrets
    return dataclasses.replace(node, value=value, reference=node.value if is_secret else None)


def with_references(data: Any, node: Node | None) -> Any:
    """Plain data as checked, with the references of the node it came from in place of secrets."""
    if node is None:
        return data
    if isinstance(data, str) and node.reference is not None:
        return node.reference
    if isinstance(data, Mapping) and isinstance(node.value, dict):
        return {key: with_references(item, node.value.get(key)) for key, item in data.items()}
    if isinstance(data, list) and isinstance(node.value, list) and len(data) == len(node.value):
        return [with_references(item, below) for item, below in zip(data, node.value, strict=True)]
    return data
