"""A key's type as a person reads it: `float > 0`, `int ≥ 1 or auto`, `list of 4 int > 0`."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from convrun.keys import LENGTH_LIMITS, NUMBER_LIMITS, Written

_SYMBOLS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "multiple_of": "a multiple of"}


def type_text(annotation: Any) -> str:
    """An annotation as a person reads it."""
    if annotation is None or annotation is type(None):
        return "null"
    names = {bool: "true or false", int: "int", float: "float", str: "text"}
    if isinstance(annotation, typing.Hashable) and annotation in names:
        return names[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        if written := next((item for item in arguments[1:] if isinstance(item, Written)), None):
            return written.meaning
        limits = [
            f"{_SYMBOLS[name]} {value:g}"
            for item in arguments[1:]
            for name in NUMBER_LIMITS
            if (value := getattr(item, name, None)) is not None
        ]
        text = " ".join([type_text(arguments[0]), " and ".join(limits)]).strip()
        return _with_length(text, *(_last_limit(arguments[1:], name) for name in LENGTH_LIMITS))
    if origin is Literal:
        return " or ".join(str(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(a) for a in arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"list of {type_text(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(type_text(a) for a in arguments)}]"
    if origin is list:
        return f"list of {type_text(arguments[0])}"
    if origin in (dict, Mapping):
        return f"map of {type_text(arguments[0])} to {type_text(arguments[1])}"
    if dataclasses.is_dataclass(annotation):
        return f"map of {', '.join(f.name for f in dataclasses.fields(annotation))}"
    return getattr(annotation, "__name__", str(annotation))


def _last_limit(metadata: tuple[Any, ...], name: str) -> Any:
    return next((v for m in reversed(metadata) if (v := getattr(m, name, None)) is not None), None)


def _with_length(text: str, least: int | None, most: int | None) -> str:
    if least == most:
        amount = f"{least}"
    elif most is None:
        amount = f"at least {least}"
    else:
        amount = f"{least} to {most}" if least else f"at most {most}"
    if amount == "None":
        return text
    is_list = text.startswith("list of")
    return text.replace("list of", f"list of {amount}", 1) if is_list else f"{text} of {amount} characters"
