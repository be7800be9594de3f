import datetime
import math

import pytest
import yaml

from convrun.recipe import load_recipe
from convrun.recipe.problems import RecipeError
from convrun.recipe.scalars import is_unicode, scalar
from convrun.recipe.tree import read_text


# The examples of YAML 1.2.2, section 10.3.2, and what YAML 1.1 reads otherwise.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, None) for text in ("", "~", "null", "Null", "NULL")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        ("0", 0), ("0o7", 7), ("0x3A", 58), ("-19", -19), ("+12", 12), ("017", 17), ("0o17", 15),
        ("0.", 0.0), ("-0.0", -0.0), (".5", 0.5), ("+12e03", 12_000.0), ("-2E+05", -200_000.0),
        ("4e-3", 0.004), ("1e3", 1000.0), ("1.", 1.0),
        (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf),
    ],
)  # fmt: skip
def test_numbers_and_names_of_the_core_schema(text, value):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_nan_is_a_number(text):
    assert math.isnan(scalar(text))


@pytest.mark.parametrize(
    "text",
    ["on", "off", "yes", "no", "y", "n", "On", "YES", "1_000", "2020-01-01", "12:30:45", "0b11", "0o8", "0xg", "-0x1",
     "1e", "e3", ".", "-", "+", "inf", "nan", ".Nan", "-.nan", "tRUE", "nULL", "٣", "1 000", "1,5", "0x"],
)  # fmt: skip
def test_what_yaml_1_1_or_other_tools_read_as_something_else_is_text(text):
    assert scalar(text) == text


def test_pyyaml_alone_would_read_some_of_these_otherwise():
    """The reason for a reader of our own; if PyYAML changes, this says so."""
    old = yaml.safe_load("{a: on, b: 1_000, c: 2020-01-01, d: 4e-3, e: 017}")
    assert old == {"a": True, "b": 1000, "c": datetime.date(2020, 1, 1), "d": "4e-3", "e": 15}


def test_an_integer_keeps_24_digits_and_longer_ones_become_floats_or_text():
    assert scalar("9" * 24) == 10**24 - 1
    assert scalar("9" * 25) == 1e25
    assert scalar("-" + "1" * 309) == -float("1" * 309)
    # 1.8e308 is the largest float.
    for text in ("9" * 309, "-" + "9" * 309, "+" + "1" * 5000):
        assert scalar(text) == text


def test_an_integer_beyond_all_numbers_is_told_by_its_digits():
    with pytest.raises(RecipeError, match=r"seed: must be an integer, got '1{50,}\.\.\."):
        load_recipe("digits_demo", ["seed=" + "1" * 5000], plugins=False)


def test_a_long_hexadecimal_number_is_text_so_that_no_digit_limit_of_python_is_met():
    assert scalar("0x" + "f" * 16) == 2**64 - 1
    assert scalar("0x" + "f" * 17) == "0x" + "f" * 17
    assert scalar("0x" + "f" * 5000) == "0x" + "f" * 5000


@pytest.mark.parametrize("written", ["'4e-3'", '"on"', "'null'", '"1"', "'true'", '""', "!!str 1", "! 1", "|-\n  1"])
def test_a_quoted_scalar_is_text(written):
    node = read_text(f"a: {written}", "test").value["a"]
    assert isinstance(node.value, str)
    assert not node.is_plain


def test_half_a_surrogate_pair_is_no_unicode():
    assert is_unicode("plain")
    assert is_unicode("😀 日本")
    assert not is_unicode("caf\udce9")
