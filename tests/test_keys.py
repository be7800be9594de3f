import datetime
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import annotated_types
import pydantic
import pytest

from convrun.keys import (
    REQUIRED,
    Betas,
    Fraction,
    KeyFaults,
    KeySet,
    Limits,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    keys_of,
    keys_of_section,
    meanings_in,
)
from convrun.recipe.recipe import plain
from convrun.type_text import type_text


def keyset(annotation, default=REQUIRED):
    def f(*, x=default):
        pass

    f.__annotations__["x"] = annotation
    f.__kwdefaults__ = {} if default is REQUIRED else {"x": default}
    return KeySet(keys_of(f))


def faults(annotation, value):
    with pytest.raises(KeyFaults) as caught:
        keyset(annotation).check({"x": value})
    return [(fault.path, fault.message) for fault in caught.value.faults]


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    """A map of keys.

    a: the first
    """

    a: PositiveInt = 1
    b: tuple[str, ...] = field(default_factory=tuple)


@pytest.mark.parametrize(
    ("annotation", "written", "value"),
    [
        (bool, True, True),
        (int, 3, 3),
        (float, 3, 3.0),
        (float, 0.5, 0.5),
        (str, "x", "x"),
        (None, None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (int | None, None, None),
        (Optional[int], 3, 3),  # noqa: UP045 - plugins may write it
        (int | Literal["auto"], "auto", "auto"),
        (float | bool | str, "x", "x"),
        (Literal["a", 2], 2, 2),
        (PositiveInt, 1, 1),
        (Fraction, 0, 0.0),
        (Betas, [0.9, 0.999], (0.9, 0.999)),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (tuple[int, str], [1, "a"], (1, "a")),
        (list[float], [1, 2.5], [1.0, 2.5]),
        (list[tuple[int, int]], [[1, 2]], [(1, 2)]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (Mapping[str, Any], {"a": None}, {"a": None}),
        (Annotated[tuple[PositiveInt, ...], Limits(min_length=2, max_length=2)], [1, 2], (1, 2)),
        (Annotated[int, "a remark", Limits(ge=0), Limits(lt=5)], 4, 4),
        (Annotated[str, Limits(min_length=1)], "a", "a"),
        (Annotated[int, annotated_types.Gt(3)], 4, 4),
        (Inner, {"a": 2}, Inner(a=2)),
        # what only pydantic knows
        (pydantic.PositiveInt, 3, 3),
        (pydantic.HttpUrl, "https://example.org/x", pydantic.HttpUrl("https://example.org/x")),
        (Annotated[str, pydantic.Field(pattern="^a+$")], "aaa", "aaa"),
        (Annotated[int, annotated_types.MultipleOf(8)], 16, 16),
        (Path, "a/b", Path("a/b")),
        (set[int], [1, 2, 1], {1, 2}),
        (frozenset[int], [1], frozenset({1})),
        (Colour, "red", Colour.RED),
        (datetime.date, "2020-01-02", datetime.date(2020, 1, 2)),
        (list, [1, "a"], [1, "a"]),
        (dict, {"a": 1}, {"a": 1}),
    ],
)
def test_a_value_of_the_annotated_type_is_taken(annotation, written, value):
    checked = keyset(annotation).check({"x": written})
    assert checked == {"x": value}
    assert type(checked["x"]) is type(value)


@pytest.mark.parametrize(
    ("annotation", "written", "message"),
    [
        (bool, 1, "true or false"),
        (bool, "true", "true or false"),
        (int, True, "an integer"),
        (int, 1.0, "an integer"),
        (int, "1", "an integer"),
        (float, "1", "a number"),
        (float, True, "a number"),
        (float, math.inf, "a finite number"),
        (float, math.nan, "a finite number"),
        (str, 1, "text"),
        (int | None, "x", "an integer or null"),
        (int | Literal["auto"], "x", "an integer or 'auto'"),
        (Literal["a", "b"], "c", "'a' or 'b'"),
        (PositiveInt, 0, "greater than 0"),
        (NonNegativeInt, -1, "greater than or equal to 0"),
        (Fraction, 1, "less than 1"),
        (Annotated[str, Limits(min_length=2)], "a", "at least 2 characters long"),
        (Annotated[str, Limits(max_length=1)], "ab", "at most 1 character long"),
        (dict[str, int], [1], "a map"),
        (list[int], {"a": 1}, "a list"),
        (tuple[int, ...], 3, "a list"),
        (pydantic.PositiveInt, 0, "greater than 0"),
        (pydantic.HttpUrl, "no url", "a valid URL, relative URL without a base"),
        (Annotated[int, annotated_types.MultipleOf(8)], 9, "a multiple of 8"),
        (Inner, 3, "a map"),
    ],
)
def test_a_value_of_another_type_is_refused_without_coercion(annotation, written, message):
    assert faults(annotation, written) == [(("x",), message)]


def test_faults_within_a_value_have_its_path():
    assert faults(tuple[int, ...], [1, "a", 2, None]) == [(("x", 1), "an integer"), (("x", 3), "an integer")]
    assert faults(dict[str, int], {"a": "b"}) == [(("x", "a"), "an integer")]
    assert faults(Inner, {"a": 0, "c": 1}) == [
        (("x", "a"), "greater than 0"),
        (("x", "c"), "Extra inputs are not permitted"),
    ]
    assert faults(list[Betas] | None, [[0.9, 2]])[0] == (("x", 0, 1), "less than 1")


@pytest.mark.parametrize("written", [[], [0.9], [0.9, 0.9, 0.9]])
def test_a_list_of_the_wrong_length_is_one_fault_at_the_list(written):
    (fault,) = faults(Betas, written)
    assert fault[0] == ("x",)


def test_every_fault_is_found_at_once():
    def f(*, a: int, b: float = 1.0, c: str = ""):
        pass

    with pytest.raises(KeyFaults) as caught:
        KeySet(keys_of(f)).check({"b": "x", "c": 1, "d": 2})
    assert [(fault.path, fault.type) for fault in caught.value.faults] == [
        (("a",), "missing"), (("b",), "float_type"), (("c",), "string_type"), (("d",), "extra_forbidden"),
    ]  # fmt: skip


def test_defaults_are_filled_in_in_the_keys_order():
    def f(*, a: int, b: float = 1.0, c: tuple[int, ...] = (1,)):
        pass

    checked = KeySet(keys_of(f)).check({"c": [2], "a": 3})
    assert list(checked.items()) == [("a", 3), ("b", 1.0), ("c", (2,))]


def test_keys_are_the_keyword_only_parameters():
    def f(handed, also, *, a: int, b: str = "x", **others: int):
        """Does.

        a: the first,
            continued
        b: the second
        handed: not a key
        """

    assert [(k.name, k.annotation, k.is_required, k.meaning) for k in keys_of(f)] == [
        ("a", int, True, "the first, continued"),
        ("b", str, False, "the second"),
    ]


def test_a_class_gives_the_keys_of_its_init():
    class C:
        """A class.

        a: the key
        """

        def __init__(self, handed, *, a: int = 1):
            pass

    assert [(k.name, k.annotation, k.meaning) for k in keys_of(C)] == [("a", int, "the key")]


def test_a_section_gives_its_fields():
    keys = keys_of_section(Inner)
    assert [(k.name, k.default, k.meaning) for k in keys] == [("a", 1, "the first"), ("b", (), "")]


FUTURE = '''
from __future__ import annotations
import functools
from typing import Annotated, Literal
from convrun.keys import Limits, PositiveInt

def decorated(function):
    @functools.wraps(function)
    def wrapper(*arguments, **keys):
        return function(*arguments, **keys)
    return wrapper

@decorated
def f(*, a: PositiveInt = 1, b: Annotated[float, Limits(gt=0)] | None = None, c: Literal["x", "y"] = "x"):
    """Does."""

class C:
    def __init__(self, run, *, a: PositiveInt = 1):
        pass
'''


def test_annotations_that_are_text_are_resolved_where_they_were_written():
    module: dict[str, Any] = {"__name__": "written_elsewhere"}
    exec(FUTURE, module)
    assert [k.type_text for k in keys_of(module["f"])] == ["int > 0", "float > 0 or null", "x or y"]
    assert [k.type_text for k in keys_of(module["C"])] == ["int > 0"]


@pytest.mark.parametrize("annotation", ["Missing", "1 +", "int.missing", "[int"])
def test_an_annotation_that_cannot_be_read_is_a_type_error(annotation):
    def f(*, x=0):
        pass

    f.__annotations__["x"] = annotation
    with pytest.raises(TypeError, match="an annotation cannot be read: "):
        keys_of(f)


def test_a_key_without_an_annotation_is_a_type_error():
    with pytest.raises(TypeError, match="no type annotation on x, y"):
        keys_of(lambda *, x=0, y=1: None)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (bool, "true or false"),
        (str, "text"),
        (int | None, "int or null"),
        (PositiveFloat, "float > 0"),
        (Fraction, "float ≥ 0 and < 1"),
        (Annotated[float, Limits(gt=0, le=1)], "float > 0 and ≤ 1"),
        (int | Literal["auto"], "int or auto"),
        (Betas, "[float ≥ 0 and < 1, float ≥ 0 and < 1]"),
        (tuple[int, ...], "list of int"),
        (Annotated[tuple[PositiveInt, ...], Limits(min_length=4, max_length=4)], "list of 4 int > 0"),
        (Annotated[list[str], Limits(min_length=1)], "list of at least 1 text"),
        (Annotated[list[str], Limits(max_length=3)], "list of at most 3 text"),
        (Annotated[list[str], Limits(min_length=2, max_length=3)], "list of 2 to 3 text"),
        (Annotated[str, Limits(min_length=1, max_length=9)], "text of 1 to 9 characters"),
        (dict[str, Any], "map of text to Any"),
        (Inner, "map of a, b"),
        (pydantic.PositiveInt, "int > 0"),
        (pydantic.HttpUrl, "HttpUrl"),
        (Path, "Path"),
        (Annotated[int, annotated_types.MultipleOf(8)], "int a multiple of 8"),
    ],
)
def test_a_type_reads_as_a_person_would_say_it(annotation, text):
    assert type_text(annotation) == text


def test_a_further_line_may_begin_with_another_keys_name():
    assert meanings_in("a: one, with\n    b: two\nb: three", ["a", "b"]) == {"a": "one, with b: two", "b": "three"}


def test_meanings_end_where_the_indentation_does():
    text = "Sum.\n\na: one\n    two\n\nb: three\nelse: not a key\n    of ours\nc:no space"
    assert meanings_in(text, ["a", "b", "c"]) == {"a": "one two", "b": "three"}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ((1, (2.0, "x")), [1, [2.0, "x"]]),
        ({"a": (1,)}, {"a": [1]}),
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        (pydantic.HttpUrl("https://example.org/x"), "https://example.org/x"),
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (frozenset({1}), [1]),
        (Inner(a=2), {"a": 2, "b": []}),
    ],
)
def test_a_checked_value_is_written_as_it_was(value, written):
    assert plain(value) == written
