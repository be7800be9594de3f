"""The keys a recipe may set, read from a signature: names, types, limits, defaults and meaning, written once.

A component's keyword-only parameters and a section's dataclass fields become `Key`s. The meaning of a key is a line
`name: meaning` of the docstring, or, for a key that several components share, a text in its type:

    DropRate = Annotated[Fraction, "probability of dropping a feature before the head"]
"""

from __future__ import annotations

import dataclasses
import inspect
import keyword
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Limits:
    """The values a number may take, or the lengths a list may have."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    min_length: int | None = None
    max_length: int | None = None


@dataclasses.dataclass(frozen=True)
class Written:
    """How a text must be written.

    Attributes:
        pattern: a regular expression for the whole text, without look-around.
        meaning: what errors and descriptions call such a text.
    """

    pattern: str
    meaning: str


PositiveInt = Annotated[int, Limits(gt=0)]
NonNegativeInt = Annotated[int, Limits(ge=0)]
PositiveFloat = Annotated[float, Limits(gt=0)]
NonNegativeFloat = Annotated[float, Limits(ge=0)]
Probability = Annotated[float, Limits(ge=0, le=1)]
Fraction = Annotated[float, Limits(ge=0, lt=1)]
Betas = tuple[Fraction, Fraction]

REQUIRED: Any = inspect.Parameter.empty
NUMBER_LIMITS = ("gt", "ge", "lt", "le", "multiple_of")
LENGTH_LIMITS = ("min_length", "max_length")


@dataclasses.dataclass(frozen=True)
class Key:
    """One key: its annotation, its default (`REQUIRED` if none) and what it means."""

    name: str
    annotation: Any
    default: Any
    meaning: str

    @property
    def is_required(self) -> bool:
        """Whether a recipe must set it."""
        return self.default is REQUIRED


def keys_of(function: Callable[..., Any]) -> tuple[Key, ...]:
    """The keys of a component: its keyword-only parameters, in order.

    A docstring line `name: meaning` (continued on lines indented deeper) describes the parameter of that name; where
    there is none, a text in its annotation does.

    Raises:
        TypeError: a keyword-only parameter has no annotation, or one that cannot be resolved.
    """
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    raw = inspect.unwrap(function.__init__ if inspect.isclass(function) else function)
    bare = [p.name for p in parameters if p.annotation is p.empty]
    if bare:
        raise TypeError(f"no type annotation on {', '.join(bare)}")
    annotations = _resolved({p.name: p.annotation for p in parameters}, getattr(raw, "__globals__", {}))
    meanings = meanings_in(inspect.getdoc(function) or "", [p.name for p in parameters])
    return tuple(_key(p.name, annotations[p.name], p.default, meanings) for p in parameters)


def keys_of_section(section: type[Any]) -> tuple[Key, ...]:
    """The keys of a section: the fields of its dataclass."""
    fields = dataclasses.fields(section)
    hints = _resolved({f.name: f.type for f in fields}, vars(inspect.getmodule(section)))
    meanings = meanings_in(inspect.getdoc(section) or "", [f.name.removesuffix("_") for f in fields])

    def default(f: dataclasses.Field[Any]) -> Any:
        if f.default_factory is not dataclasses.MISSING:
            return f.default_factory()
        return REQUIRED if f.default is dataclasses.MISSING else f.default

    named = {f.name: f.name.removesuffix("_") for f in fields}  # the field `from_` is the key `from`
    return tuple(_key(named[f.name], hints[f.name], default(f), meanings) for f in fields)


def _key(name: str, annotation: Any, default: Any, meanings: Mapping[str, str]) -> Key:
    return Key(name, annotation, default, meanings.get(name) or meaning_of(annotation))


def meaning_of(annotation: Any) -> str:
    """The text in an annotation, or in a branch of it (`X | None`); empty if there is none."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return next((text for text in reversed(arguments[1:]) if isinstance(text, str)), "")
    if origin in (typing.Union, types.UnionType):
        return next((text for text in map(meaning_of, arguments) if text), "")
    return ""


def is_section(annotation: Any) -> typing.TypeGuard[type[Any]]:
    """Whether an annotation is a section's dataclass, so that the key is a map of keys."""
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def section_of(section: type[T], values: Mapping[str, Any]) -> T:
    """A section from the values of its keys."""
    return section(**{name + "_" if keyword.iskeyword(name) else name: value for name, value in values.items()})


def values_of(section: Any) -> dict[str, Any]:
    """The values of a section's keys, sections in it as maps."""
    values = dataclasses.asdict(section)
    return {name.removesuffix("_"): value for name, value in values.items()}


def _resolved(annotations: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    if not any(isinstance(a, str) for a in annotations.values()):
        return annotations
    holder = types.SimpleNamespace(__annotations__=annotations)
    try:
        return typing.get_type_hints(holder, globalns=namespace, include_extras=True)
    except Exception as error:
        raise TypeError(f"an annotation cannot be read: {error}") from error


def meanings_in(docstring: str, names: Sequence[str]) -> dict[str, str]:
    """What a docstring says of each name, from its `name: meaning` lines."""
    found: dict[str, str] = {}
    current, indent = None, 0
    for line in docstring.splitlines():
        match = re.match(r"(\s*)(\w+): (.+)", line)
        # A line that is indented deeper continues the meaning, whatever word it begins with.
        if current and line.strip() and len(line) - len(line.lstrip()) > indent:
            found[current] += " " + line.strip()
        elif match and match[2] in names:
            current, indent = match[2], len(match[1])
            found[current] = match[3].strip()
        else:
            current = None
    return found
