"""A script's flags as data, and a command line parsed by them with argparse, as the scripts themselves do."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn

from convrun.errors import UsageError
from convrun.text.wording import nearest

Fate = Literal["translated", "no effect", "refused"]


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag of a script.

    Attributes:
        name: as the script spells it, without dashes.
        type: reads its text; None: a switch without a value.
        default: the script's own.
        fate: what becomes of it; a `refused` flag is refused only if its value is not the default.
        why: the reason, if the recipe does not contain it.
        nargs: as argparse has it.
        choices: the values allowed; None: any.
        aliases: other spellings, with their dashes.
        const: the value of a flag given without one, where nargs is `?`.
    """

    name: str
    type: Callable[[str], Any] | None = str
    default: Any = None
    fate: Fate = "translated"
    why: str = ""
    nargs: str | int | None = None
    choices: tuple[str, ...] | None = None
    aliases: tuple[str, ...] = ()
    const: str | None = None

    @property
    def dest(self) -> str:
        """The name its value goes by in the script."""
        return self.name.replace("-", "_")


def yes_or_no(text: str) -> bool:
    """The released script's reading of `true` and `false`.

    Raises:
        ArgumentTypeError: neither.
    """
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"true or false expected, got {text!r}")


class Given:
    """The flags of one command: their values, the script's defaults where they were not given."""

    def __init__(self, script: str, flags: Sequence[Flag], values: Mapping[str, Any]) -> None:
        self.script = script
        self.flags = {flag.dest: flag for flag in flags}
        self._values = dict(values)
        self.asked: set[str] = set()

    def __getitem__(self, dest: str) -> Any:
        self.asked.add(dest)
        return self._values.get(dest, self.flags[dest].default)

    def has(self, dest: str) -> bool:
        """Whether the command gives the flag."""
        self.asked.add(dest)
        return dest in self._values

    def shown(self, dest: str) -> str:
        """`--name value` as a person would write it."""
        value = self._values.get(dest, self.flags[dest].default)
        if self.flags[dest].type is None:
            return f"--{self.flags[dest].name}"
        parts = value if isinstance(value, list) else [value]
        return " ".join([f"--{self.flags[dest].name}", *(_text(part) for part in parts)])


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "=".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "''"


class Parser(argparse.ArgumentParser):
    """argparse, abbreviations and all, but an error is an exception of ours."""

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(f"{self.prog}: {message}")


def read_arguments(script: str, flags: Sequence[Flag], words: Sequence[str], positional: str | None = None) -> Given:
    """The flags in a command's words.

    Args:
        script: for messages.
        flags: all flags of the script.
        words: what follows the script in the command.
        positional: the name of a flag whose value may stand alone.

    Raises:
        UsageError: an unknown flag (with the nearest name), a missing value, a value of the wrong type.
    """
    parser = Parser(script, add_help=False, argument_default=argparse.SUPPRESS)
    for flag in flags:
        _add(parser, flag)
    if positional:
        parser.add_argument("WORD", nargs="?", default=argparse.SUPPRESS)
    found, unknown = parser.parse_known_args(list(words))
    values = vars(found)
    if positional and "WORD" in values:
        values.setdefault(positional, values.pop("WORD"))
        values.pop("WORD", None)
    if unknown:
        raise UsageError("\n".join(_unknown(script, flags, word) for word in _heads(unknown)))
    return Given(script, flags, values)


def _add(parser: argparse.ArgumentParser, flag: Flag) -> None:
    names = (f"--{flag.name}", *flag.aliases)
    if flag.type is None:
        parser.add_argument(*names, dest=flag.dest, action="store_true", default=argparse.SUPPRESS)
        return
    extra: dict[str, Any] = {"const": flag.const} if flag.const is not None else {}
    parser.add_argument(*names, dest=flag.dest, type=flag.type, nargs=flag.nargs, choices=flag.choices, **extra)


def _heads(unknown: Sequence[str]) -> list[str]:
    """The unknown flags; if there are none, the first unknown word."""
    return [word.partition("=")[0] for word in unknown if word.startswith("--")] or [unknown[0]]


def _unknown(script: str, flags: Sequence[Flag], word: str) -> str:
    if not word.startswith("-"):
        return f"{script}: {word!r} does not belong to a flag"
    guess = nearest(word.lstrip("-").replace("_", "-"), [flag.name.replace("_", "-") for flag in flags])
    names = {flag.name.replace("_", "-"): flag.name for flag in flags}
    return f"{script} has no flag {word}" + (f"; did you mean --{names[guess]}?" if guess else "")
