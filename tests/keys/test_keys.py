from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

from convrun.keys import Limits, PositiveInt, keys_of, keys_of_section, meanings_in
from convrun.keys.durations import Duration
from convrun.keys.key_sets import InvalidKeys, KeySet
from convrun.keys.type_text import type_text


@dataclass(frozen=True)
class Inner:
    """A map of keys.

    a: the first
    """

    a: PositiveInt = 1
    b: tuple[str, ...] = field(default_factory=tuple)


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


Share = Annotated[float, Limits(ge=0, lt=1), "how much of it"]


def test_a_text_in_the_annotation_says_what_a_key_means_where_the_docstring_does_not():
    def f(*, a: Share, b: Share | None = None, c: Annotated[Share, "rather this"] = 0.5, d: Share = 0.5):
        """Does.

        d: the fourth
        """

    assert [(k.name, k.meaning, type_text(k.annotation)) for k in keys_of(f)] == [
        ("a", "how much of it", "float ≥ 0 and < 1"),
        ("b", "how much of it", "float ≥ 0 and < 1 or null"),
        ("c", "rather this", "float ≥ 0 and < 1"),
        ("d", "the fourth", "float ≥ 0 and < 1"),
    ]
    assert KeySet(keys_of(f)).check({"a": 0}) == {"a": 0.0, "b": None, "c": 0.5, "d": 0.5}
    with pytest.raises(InvalidKeys, match="less than 1"):
        KeySet(keys_of(f)).check({"a": 0, "b": 1})


def test_a_described_key_keeps_how_it_is_written():
    def f(*, wait: Annotated[Duration, "how long it waits"]):
        pass

    (key,) = keys_of(f)
    assert (key.meaning, type_text(key.annotation)) == ("how long it waits", type_text(Duration))
    with pytest.raises(InvalidKeys, match="a duration with units"):
        KeySet([key]).check({"wait": "soon"})


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
    assert [type_text(k.annotation) for k in keys_of(module["f"])] == ["int > 0", "float > 0 or null", "x or y"]
    assert [type_text(k.annotation) for k in keys_of(module["C"])] == ["int > 0"]


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


def test_a_further_line_may_begin_with_another_keys_name():
    assert meanings_in("a: one, with\n    b: two\nb: three", ["a", "b"]) == {"a": "one, with b: two", "b": "three"}


def test_meanings_end_where_the_indentation_does():
    text = "Sum.\n\na: one\n    two\n\nb: three\nelse: not a key\n    of ours\nc:no space"
    assert meanings_in(text, ["a", "b", "c"]) == {"a": "one two", "b": "three"}
