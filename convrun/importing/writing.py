"""A draft of a recipe, each value with its origin -> YAML with comments, checked before it is shown."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from convrun.errors import UsageError
from convrun.recipe.check import checked
from convrun.recipe.inheritance import with_names_expanded
from convrun.recipe.problems import Problem, RecipeError, dotted
from convrun.recipe.recipe import Recipe
from convrun.recipe.scalars import scalar
from convrun.recipe.sections import ORDER
from convrun.recipe.substitution import substituted
from convrun.recipe.tree import read_text

WIDTH = 120
_COMMENT_COLUMN = 44
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./][\w./-]*")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a value comes from: `flag` as the user wrote it, and the comment beside it."""

    flag: str
    comment: str


class Draft:
    """A draft of a recipe."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[tuple[str | int, ...], Origin] = {}
        self.differs: list[str] = []
        self.no_effect: list[str] = []
        self.hints: list[str] = []

    def set(self, path: str, value: Any, flag: str = "", comment: str = "") -> None:
        """Puts a value at a dotted path (a number is an index into a list)."""
        steps = _steps(path)
        at: Any = self.values
        for step in steps[:-1]:
            at = at[step] if isinstance(step, int) else at.setdefault(step, {})
        at[steps[-1]] = value
        self.origins[steps] = Origin(flag, " ".join(comment.split()))

    def item(self, section: str, name: str) -> str:
        """Adds a component to a list; returns its path."""
        items = self.values.setdefault(section, [])
        items.append({"name": name})
        return f"{section}.{len(items) - 1}"

    def render(self, head: Sequence[str]) -> str:
        """The YAML text: the command, remarks, then the recipe in its usual order."""
        lines = [_comment(line) for line in head]
        for title, remarks in (
            ("What differs from the command:", self.differs),
            ("Flags that are not in the recipe, and why:", self.no_effect),
            ("To run it:", self.hints),
        ):
            if remarks:
                lines += ["#", f"# {title}", *(_comment(remark, "- ") for remark in remarks)]
        ordered = {section: self.values[section] for section in ORDER if section in self.values}
        body = list(self._lines(ordered, (), ""))
        column = min(_COMMENT_COLUMN, max(len(line) for line, _ in body))
        lines += [_beside(line, comment, column) for line, comment in body]
        return "\n".join(lines) + "\n"

    def _lines(self, values: dict[str, Any], path: tuple[str | int, ...], indent: str) -> Iterator[tuple[str, str]]:
        for key, value in values.items():
            origin = self.origins.get((*path, key), Origin("", ""))
            if isinstance(value, dict) and (*path, key) not in self.origins:
                yield f"{indent}{key}:", origin.comment
                yield from self._lines(value, (*path, key), indent + "  ")
            elif isinstance(value, list) and value and isinstance(value[0], dict):
                yield f"{indent}{key}:", origin.comment
                for i, item in enumerate(value):
                    inner = list(self._lines(item, (*path, key, i), indent + "    "))
                    yield f"{indent}  - {inner[0][0].strip()}", inner[0][1]
                    yield from inner[1:]
            else:
                yield f"{indent}{key}: {_text(value)}", origin.comment

    def check(self, text: str) -> Recipe:
        """The recipe that the text is.

        Raises:
            UsageError: a value that no recipe can have, by the flag that brought it.
        """
        problems: list[Problem] = []
        try:
            tree = substituted(with_names_expanded(read_text(text, "imported")), problems, env=_AnyVariable())
            if problems:
                raise RecipeError(problems)
            return checked(tree, Path("imported.yaml"))
        except RecipeError as error:
            raise UsageError("\n".join(self._by_flag(problem) for problem in error.problems)) from error

    def _by_flag(self, problem: Problem) -> str:
        path = problem.path
        while path and path not in self.origins:
            path = path[:-1]
        flag = self.origins[path].flag if path else ""
        message = f"{problem.message}; {problem.cure}" if problem.cure else problem.message
        return f"{flag or 'the command'}: {' '.join([*([dotted(problem.path)] if problem.path else []), message])}"


class _AnyVariable(dict[str, str]):
    """Stands for an environment that has every variable: the recipe may run on another machine."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return os.environ.get(name, name)


def _steps(path: str) -> tuple[str | int, ...]:
    return tuple(int(step) if step.isdigit() else step for step in path.split("."))


def _flow(value: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"


def _text(value: Any) -> str:
    """A value as YAML 1.2 on one line."""
    if isinstance(value, float):
        return re.sub(r"e([-+])0*(\d)", r"e\1\2", repr(value)).replace("e+", "e")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    if isinstance(value, str) and not (_PLAIN_WORD.fullmatch(value) and isinstance(scalar(value), str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return _flow(value)
    return value if isinstance(value, str) else json.dumps(value)


def _comment(text: str, bullet: str = "") -> str:
    first = f"# {bullet}"
    later = "# " + " " * len(bullet or "  ")
    return textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _beside(line: str, comment: str, column: int) -> str:
    """The comment at the end of the line, or above it where the line would get too long."""
    if not comment:
        return line
    beside = f"{line:<{column}}  # {comment}"
    if len(beside) <= WIDTH:
        return beside
    indent = line[: len(line) - len(line.lstrip())]
    wrapped = textwrap.wrap(comment, WIDTH - len(indent) - 2, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*(f"{indent}# {part}" for part in wrapped), line])
