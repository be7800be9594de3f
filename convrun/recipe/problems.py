"""What is wrong in a recipe and where: `file:line:column: path: message; cure`, then the line with a caret."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from convrun.errors import ConvrunError
from convrun.text.secrets import blotted

Path = tuple[str | int, ...]
MOST_SHOWN = 110


@dataclasses.dataclass(frozen=True)
class Place:
    """A position in a recipe file or in an override; lines and columns count from 1.

    Attributes:
        source: the file as the user would name it, or `override`.
        text: the whole source line, for the caret.
    """

    source: str
    line: int
    column: int
    text: str = ""

    def __str__(self) -> str:
        return self.source if self.line == 0 else f"{self.source}:{self.line}:{self.column}"


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, which key, what, and how to fix it."""

    place: Place | None
    path: Path
    message: str
    cure: str = ""

    @property
    def position(self) -> tuple[str, int, int]:
        """What problems are sorted by: file, line, column."""
        return (self.place.source, self.place.line, self.place.column) if self.place else ("", 0, 0)

    def render(self) -> str:
        """One line, then the source line and a caret where there is one."""
        parts = [str(self.place) if self.place else "", dotted(self.path), self.message]
        lines = [": ".join(part for part in parts if part) + (f"; {self.cure}" if self.cure else "")]
        if self.place and self.place.text.strip():
            lines += [f"    {line}" for line in excerpt(blotted(self.place.text), self.place.column)]
        return "\n".join(lines)


def excerpt(text: str, column: int) -> tuple[str, str]:
    """A source line without its indentation (if it is long, the part around the column), and its caret."""
    length, at = len(text.rstrip()), min(column - 1, len(text))
    start = min(at, len(text) - len(text.lstrip()))
    if length - start > MOST_SHOWN:
        start = max(start, min(at - MOST_SHOWN // 2, length - MOST_SHOWN))
    end = start + MOST_SHOWN
    before = "…" if text[:start].strip() else ""
    shown = "".join(c if c.isprintable() else " " for c in text[start : min(end, length)])
    gap = " " * (len(before) + _columns(shown[: at - start]))
    return f"{before}{shown}{'…' if length > end else ''}", f"{gap}^"


def _columns(text: str) -> int:
    """The number of columns that the text takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def dotted(path: Iterable[str | int]) -> str:
    """A path as an override writes it: `augmentations.2.policy`."""
    return ".".join(_step(str(step)) for step in path)


def _step(step: str) -> str:
    if step.isprintable() and len(step) <= MOST_SHOWN:
        return step
    return repr(step)[1:-1][:MOST_SHOWN]


class RecipeError(ConvrunError):
    """A recipe or an override is wrong: every problem at once."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.render() for problem in self.problems))

    def report(self) -> str:
        """The problems, and how many there are."""
        count = len(self.problems)
        return f"{self}\n{count} problem{'s' if count > 1 else ''}"
