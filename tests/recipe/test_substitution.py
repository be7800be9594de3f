import os

import pytest

from convrun.recipe.substitution import substituted
from convrun.recipe.tree import read_text


def filled(written, **env):
    problems = []
    tree = substituted(read_text(f"a: {written}", "test"), problems, env=env)
    return tree.plain()["a"], [f"{p.message}; {p.cure}" for p in problems]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"${env:X}"', "5"),
        ("${env:X}", 5),
        ("${env:X}e-3", 0.005),
        ('"${env:X}/${env:Y}/z"', "5/data/z"),
        ("${env:X}/z", "5/z"),
        ('"${env:NONE:there}"', "there"),
        ("${env:NONE:7}", 7),
        ("${env:NONE:}", None),
        ('"${env:NONE:}"', ""),
        ('"${env:NONE:a:b}"', "a:b"),
        ('"${env:X:unused}"', "5"),
        ('"${env:EMPTY}"', ""),
        ('"${env:EMPTY:default}"', ""),
        ("'$X and {X}'", "$X and {X}"),
    ],
)
def test_a_reference_is_filled_in_and_an_unquoted_one_is_read_as_a_scalar(written, value):
    assert filled(written, X="5", Y="data", EMPTY="") == (value, [])


def test_references_in_lists_and_maps_are_filled_in():
    assert filled('[{b: "${env:X}"}, "${env:X}"]', X="1") == ([{"b": "1"}, "1"], [])


def test_a_filled_in_text_is_not_filled_in_again():
    assert filled('"${env:X}"', X="${env:Y}", Y="no") == ("${env:Y}", [])


def test_a_variable_that_is_not_set_names_both_cures():
    _, problems = filled('"${env:NOWHERE}"')
    assert problems == ["the environment variable NOWHERE is not set; export NOWHERE=..., or set it here: a=..."]


@pytest.mark.parametrize(
    "written", ["${X}", "${env:}", "${env:1X}", "${ENV:X}", "${env: X}", "${}", "${oc.env:X}", "${model.name}"]
)
def test_no_other_interpolation_exists(written):
    _, problems = filled(f"'{written}'", X="1")
    assert problems == [f"{written} means nothing; write ${{env:NAME}} or ${{env:NAME:default}}"]


def test_an_open_reference_is_an_error():
    assert filled("'${env:X'", X="1")[1] == ["${ without its }; write ${env:NAME}"]


def test_a_variable_that_is_not_utf_8_is_an_error():
    assert filled('"${env:X}"', X=os.fsdecode(b"caf\xe9"))[1] == ["the environment variable X is not UTF-8; "]


DATA = 'data: {name: image_folder, root: "${env:CONVRUN_NOWHERE}", num_classes: 2, train_images: 100, val_images: 9}'


def test_a_problem_points_at_the_reference(problem, whole, monkeypatch):
    monkeypatch.delenv("CONVRUN_NOWHERE", raising=False)
    found = problem(whole.replace("data: {name: synthetic, train_images: 100, val_images: 20}", DATA))
    assert (found.place.line, found.place.column, found.path) == (4, 34, ("data", "root"))
    assert found.cure == "export CONVRUN_NOWHERE=..., or set it here: data.root=..."


def test_an_overridden_key_needs_no_variable(load, whole, monkeypatch):
    monkeypatch.delenv("CONVRUN_NOWHERE", raising=False)
    text = whole.replace("data: {name: synthetic, train_images: 100, val_images: 20}", DATA)
    assert load(text, "data.root=there").data.values["root"] == "there"


def test_a_variable_is_read_when_it_is_set(load, whole, monkeypatch):
    monkeypatch.setenv("CONVRUN_NOWHERE", "4e-3")
    text = whole.replace("data: {name: synthetic, train_images: 100, val_images: 20}", DATA)
    assert load(text).data.values["root"] == "4e-3", "it is quoted, so it stays text"
