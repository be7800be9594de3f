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
    Limits,
    NonNegativeInt,
    PositiveInt,
    keys_of,
)
from convrun.keys.key_sets import InvalidKeys, KeySet
from convrun.recipe.recipe import plain


def keyset(annotation, default=REQUIRED):
    def f(*, x=default):
        pass

    f.__annotations__["x"] = annotation
    f.__kwdefaults__ = {} if default is REQUIRED else {"x": default}
    return KeySet(keys_of(f))


def invalid(annotation, value):
    with pytest.raises(InvalidKeys) as caught:
        keyset(annotation).check({"x": value})
    return [(key.path, key.message) for key in caught.value.found]


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
    assert invalid(annotation, written) == [(("x",), message)]


def test_faults_within_a_value_have_its_path():
    assert invalid(tuple[int, ...], [1, "a", 2, None]) == [(("x", 1), "an integer"), (("x", 3), "an integer")]
    assert invalid(dict[str, int], {"a": "b"}) == [(("x", "a"), "an integer")]
    assert invalid(Inner, {"a": 0, "c": 1}) == [
        (("x", "a"), "greater than 0"),
        (("x", "c"), "Extra inputs are not permitted"),
    ]
    assert invalid(list[Betas] | None, [[0.9, 2]])[0] == (("x", 0, 1), "less than 1")


@pytest.mark.parametrize("written", [[], [0.9], [0.9, 0.9, 0.9]])
def test_a_list_of_the_wrong_length_is_one_error_at_the_list(written):
    (found,) = invalid(Betas, written)
    assert found[0] == ("x",)


def test_every_invalid_key_is_found_at_once():
    def f(*, a: int, b: float = 1.0, c: str = ""):
        pass

    with pytest.raises(InvalidKeys) as caught:
        KeySet(keys_of(f)).check({"b": "x", "c": 1, "d": 2})
    assert [(key.path, key.type) for key in caught.value.found] == [
        (("a",), "missing"), (("b",), "float_type"), (("c",), "string_type"), (("d",), "extra_forbidden"),
    ]  # fmt: skip


def test_defaults_are_filled_in_in_the_keys_order():
    def f(*, a: int, b: float = 1.0, c: tuple[int, ...] = (1,)):
        pass

    checked = KeySet(keys_of(f)).check({"c": [2], "a": 3})
    assert list(checked.items()) == [("a", 3), ("b", 1.0), ("c", (2,))]


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
