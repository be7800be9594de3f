from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
import pydantic
import pytest

from convrun.keys import (
    Betas,
    Fraction,
    Limits,
    PositiveFloat,
    PositiveInt,
)
from convrun.keys.type_text import type_text


@dataclass(frozen=True)
class Inner:
    """A map of keys.

    a: the first
    """

    a: PositiveInt = 1
    b: tuple[str, ...] = field(default_factory=tuple)


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
