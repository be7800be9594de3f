"""A sweep: every combination of the values that some keys are given."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from convrun.errors import UsageError

MOST_RUNS = 1000


def combinations(axes: Sequence[str]) -> list[list[str]]:
    """`["a=1,2", "b=x,y"]` -> `[["a=1", "b=x"], ["a=1", "b=y"], ["a=2", "b=x"], ["a=2", "b=y"]]`.

    Raises:
        UsageError: an axis that is not KEY=VALUE,VALUE, or comes twice; more than 1000 runs.
    """
    values: dict[str, list[str]] = {}
    for axis in axes:
        key, equals, written = axis.partition("=")
        key, found = key.strip(), _split(written)
        if not equals or not key or not all(found):
            raise UsageError(f"--sweep takes KEY=VALUE,VALUE..., got {axis!r}; for example optimizer.lr=1e-3,2e-3")
        if key in values:
            raise UsageError(f"--sweep has {key} twice; write all its values in one list")
        if len(set(found)) < len(found):
            raise UsageError(f"--sweep {axis} has a value twice: the two runs would be the same")
        values[key] = found
    runs = [
        [f"{key}={value}" for key, value in zip(values, chosen, strict=True)]
        for chosen in itertools.islice(itertools.product(*values.values()), MOST_RUNS + 1)
    ]
    if len(runs) > MOST_RUNS:
        raise UsageError(f"the sweep has more than {MOST_RUNS} runs; leave some values out")
    return runs


def with_every_axis_named(arguments: Sequence[str]) -> list[str]:
    """`--sweep A B -o C` -> `--sweep A --sweep B -o C`: the words up to the next option are axes."""
    named: list[str] = []
    is_axis = False
    for i, argument in enumerate(arguments):
        if argument.startswith("-"):
            is_axis = argument == "--sweep"
        elif is_axis and arguments[i - 1] != "--sweep":
            named.append("--sweep")
        named.append(argument)
    return named


def _split(text: str) -> list[str]:
    """Values between commas; commas in brackets, braces and quotes do not separate."""
    parts, depth, quote, start = [], 0, "", 0
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def folder_name(index: int, count: int, chosen: Sequence[str]) -> str:
    """The name of one run's folder: its number, and the values that differ between the runs."""
    words = [f"{key.rpartition('.')[2]}={value}" for key, _, value in (c.partition("=") for c in chosen)]
    text = re.sub(r"[^A-Za-z0-9.=+_-]+", "_", "-".join(words))[:80]
    return f"{index:0{len(str(count - 1))}}-{text}"
