"""Sets of keys: checks the values of a document against the keys' annotations, and reports everything that is wrong.

Annotations become pydantic-core schemas here rather than through `pydantic.BaseModel`: importing the latter costs about
70 ms, half of all that `convrun validate` may take. An annotation this module does not know goes to
`pydantic.TypeAdapter`, so every pydantic type works.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union

from pydantic_core import SchemaValidator, ValidationError, core_schema

from convrun.keys import LENGTH_LIMITS, NUMBER_LIMITS, Key, Written, keys_of_section


def schema_of(annotation: Any) -> core_schema.CoreSchema:
    """The pydantic-core schema of an annotation."""
    simple: dict[Any, Callable[[], core_schema.CoreSchema]] = {
        bool: core_schema.bool_schema,
        int: core_schema.int_schema,
        str: core_schema.str_schema,
        Any: core_schema.any_schema,
        None: core_schema.none_schema,
        type(None): core_schema.none_schema,
    }
    if annotation is float:
        return core_schema.float_schema(allow_inf_nan=False)
    if isinstance(annotation, typing.Hashable) and annotation in simple:
        return simple[annotation]()
    if dataclasses.is_dataclass(annotation):
        return key_set_of(typing.cast("type[Any]", annotation)).schema
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _limited(arguments[0], arguments[1:], annotation)
    if origin is Literal:
        return core_schema.literal_schema(list(arguments))
    if origin in (Union, types.UnionType):
        return core_schema.union_schema([schema_of(a) for a in arguments], mode="left_to_right")
    if origin is tuple and arguments:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return core_schema.tuple_schema([schema_of(arguments[0])], variadic_item_index=0)
        return core_schema.tuple_schema([schema_of(a) for a in arguments])
    if origin is list:
        return core_schema.list_schema(schema_of(arguments[0]))
    if origin in (dict, Mapping):
        return core_schema.dict_schema(schema_of(arguments[0]), schema_of(arguments[1]))
    return _schema_by_pydantic(annotation)


def _limited(annotation: Any, metadata: tuple[Any, ...], whole: Any) -> core_schema.CoreSchema:
    metadata = tuple(item for item in metadata if not isinstance(item, str))  # what the key means
    if annotation is str and len(metadata) == 1 and isinstance(metadata[0], Written):
        text = core_schema.str_schema(pattern=metadata[0].pattern)
        return core_schema.custom_error_schema(text, "written", custom_error_message=metadata[0].meaning)
    schema = dict(schema_of(annotation))
    allowed = NUMBER_LIMITS if schema["type"] in ("int", "float") else LENGTH_LIMITS
    for item in metadata:
        limits = {name: getattr(item, name, None) for name in (*NUMBER_LIMITS, *LENGTH_LIMITS)}
        limits = {name: value for name, value in limits.items() if value is not None}
        if not limits or any(name not in allowed for name in limits):
            return _schema_by_pydantic(whole)
        schema.update(limits)
    return typing.cast("core_schema.CoreSchema", schema)


def _schema_by_pydantic(annotation: Any) -> core_schema.CoreSchema:
    from pydantic import TypeAdapter

    return TypeAdapter(annotation).core_schema


@dataclasses.dataclass(frozen=True)
class InvalidKey:
    """A key that is unknown, missing, or has an invalid value.

    Attributes:
        path: of the key below its section.
        type: pydantic's error type.
        message: what the value must be.
    """

    path: tuple[str | int, ...]
    type: str
    message: str


class InvalidKeys(Exception):
    """Every invalid key of a mapping."""

    def __init__(self, found: list[InvalidKey]) -> None:
        super().__init__("; ".join(key.message for key in found))
        self.found = found


class KeySet:
    """A set of keys, which checks a mapping against all of them at once."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = {key.name: key for key in keys}

    @functools.cached_property
    def schema(self) -> core_schema.TypedDictSchema:
        """The pydantic-core schema of a mapping with these keys and no others."""
        fields = {
            key.name: core_schema.typed_dict_field(schema_of(key.annotation), required=key.is_required)
            for key in self.keys.values()
        }
        return core_schema.typed_dict_schema(fields, extra_behavior="forbid")

    @functools.cached_property
    def _validator(self) -> SchemaValidator:
        return SchemaValidator(self.schema)

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with defaults filled in, in the keys' order.

        Values are those of a YAML or JSON document. Only an integer is converted to a float, and a list to a tuple.

        Raises:
            InvalidKeys: with every key that is invalid.
        """
        try:
            checked = self._validator.validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            raise InvalidKeys(_merged(error, values)) from None
        return {name: _built(key, checked.get(name, key.default)) for name, key in self.keys.items()}


_key_sets: dict[type[Any], KeySet] = {}


def key_set_of(section: type[Any]) -> KeySet:
    """The keys of a section; made once per process, since their schema is costly."""
    if section not in _key_sets:
        _key_sets[section] = KeySet(keys_of_section(section))
    return _key_sets[section]


def _built(key: Key, value: Any) -> Any:
    """A value whose annotation is a dataclass becomes one."""
    is_section = dataclasses.is_dataclass(key.annotation) and isinstance(value, dict)
    return key.annotation(**value) if is_section else value


def _merged(error: ValidationError, values: Mapping[str, Any]) -> list[InvalidKey]:
    """One entry per place: pydantic reports each branch of a union, with the branch's name in the path."""
    by_path: dict[tuple[str | int, ...], list[tuple[str, str]]] = {}
    for item in error.errors(include_url=False):
        path, kind, message = _path_in(item["loc"], values, item["type"]), item["type"], _lowered(item["msg"])
        if kind == "missing" and path and isinstance(path[-1], int):
            path, kind, message = path[:-1], "too_short", "a longer list"
        by_path.setdefault(path, []).append((kind, message))
    # A list is reported as too short when its items are wrong; the messages about the items say more.
    around = {path[:i] for path in by_path for i in range(len(path))}
    return [
        InvalidKey(path, found[0][0], " or ".join(dict.fromkeys(message for _, message in found)))
        for path, found in by_path.items()
        if path not in around
    ]


def _path_in(location: tuple[str | int, ...], values: Any, kind: str) -> tuple[str | int, ...]:
    path: list[str | int] = []
    for step in location:
        is_key = isinstance(values, Mapping) and step in values
        is_index = isinstance(values, list) and isinstance(step, int) and step < len(values)
        if is_key or is_index:
            values = values[step]
        elif kind == "missing" and step == location[-1]:
            pass
        else:
            continue
        path.append(step)
    return tuple(path)


# pydantic's words -> those that users of recipes read.
_WORDS = {
    "integer": "an integer", "string": "text", "boolean": "true or false", "number": "a number", "list": "a list",
    "tuple": "a list", "array": "a list", "dictionary": "a map", "object": "a map",
}  # fmt: skip


def _lowered(message: str) -> str:
    """Pydantic's message, where it is a common one, in words that follow `must be`."""
    message = message.removeprefix("Input ").removeprefix("should be ")
    message = re.sub(r"^String should have (at (?:least|most) \d+ characters?)$", r"\1 long", message)
    kind = re.match(rf"(?:an? )(?:valid )?({'|'.join(_WORDS)})\b", message)
    return _WORDS[kind[1]] if kind else message
