"""Each kind of problem points at the file, line and column a person would look at, with the caret under it."""

import textwrap

import pytest

from convrun.recipe import load_recipe
from convrun.recipe.problems import RecipeError


def pointed(problem):
    """What the caret of a problem is under."""
    _, source, caret = problem.render().split("\n")
    return source[len(caret) - 1 :]


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "caret"),
    [
        # a wrong value: at the value
        ("lr: 4e-3", "lr: fast", 8, 30, "fast}"),
        ("drop_path_rate: 0.1", "drop_path_rate: 1.5", 3, 46, "1.5}"),
        ("name: adamw", "name: adamx", 8, 19, "adamx,"),
        ("mixup_alpha: 0.8", "mixup_alpha: -1", 7, 39, "-1}"),
        ("epochs: 5", "epochs: 0", 10, 20, "0, batch"),
        # an unknown key: at the key
        ("lr: 4e-3", "lr: 4e-3, lrr: 1", 8, 36, "lrr: 1"),
        ("seed: 0", "sead: 0", 11, 1, "sead: 0"),
        # a missing key: at the section's key
        (", lr: 4e-3", "", 8, 1, "optimizer:"),
        ("name: adamw, ", "", 8, 1, "optimizer:"),
        ("batch_size: 10", "micro_batch: 5", 10, 1, "training:"),
        # a section of the wrong kind: at its value
        ("{epochs: 5, batch_size: 10}", "5 epochs", 10, 11, "5 epochs"),
        # what contradicts: at the later one
        ("epochs: 5", "epochs: 5, steps: 7", 10, 23, "steps: 7"),
    ],
)
def test_a_problem_points_at_line_and_column(problem, whole, old, new, line, column, caret):
    text = whole + "seed: 0\n"
    assert old in text
    found = problem(text.replace(old, new))
    assert (found.place.line, found.place.column) == (line, column)
    assert pointed(found).startswith(caret)


def test_a_missing_section_points_at_the_start_of_the_recipe(problem, whole):
    found = problem("# a comment\n" + "".join(s for s in whole.splitlines(True) if not s.startswith("scheduler")))
    assert found.path == ("scheduler",)
    assert (found.place.line, found.place.column) == (2, 1)


def test_deep_indentation_keeps_the_caret_under_its_character(problem, whole):
    block = "optimizer:\n" + " " * 30 + "name: adamw\n" + " " * 30 + "lr: fast\n"
    found = problem(whole.replace("optimizer: {name: adamw, lr: 4e-3}\n", block))
    assert (found.place.line, found.place.column) == (10, 35)
    assert pointed(found) == "fast"


def test_problems_come_in_the_order_of_the_file(problems, whole):
    text = whole.replace("epochs: 5", "epochs: 0").replace("32", "3").replace("lr: 4e-3", "lr: 0, eps: 0")
    assert [p.path for p in problems(text)] == [
        ("input_size",), ("optimizer", "lr"), ("optimizer", "eps"), ("training", "epochs"),
    ]  # fmt: skip


def test_an_error_in_a_parent_points_to_the_parents_file(write):
    write("training: {epochs: 0, batch_size: 1}\nmodel: convnext_atto\n", "parents/base.yaml")
    child = write("extends: parents/base.yaml\ndata: synthetic\noptimizer: {name: adamw, lr: 1}\nscheduler: cosin\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(child, plugins=False)
    in_parent, in_child = sorted(caught.value.problems, key=lambda p: p.path, reverse=True)
    assert in_parent.place.source == str(child.parent / "parents/base.yaml")
    assert (in_parent.path, in_parent.place.line, in_parent.place.column) == (("training", "epochs"), 1, 20)
    assert in_child.place.source == str(child)
    assert (in_child.path, in_child.place.line) == (("scheduler", "name"), 4)


def test_a_parent_that_is_no_yaml_points_to_the_parents_file(write):
    write("a: [1", "base.yaml")
    with pytest.raises(RecipeError, match=r"base\.yaml:\d+:\d+: not YAML"):
        load_recipe(write("extends: base\n", "child.yaml"), plugins=False)


@pytest.mark.parametrize(
    ("override", "column", "caret"),
    [
        ("optimizer.lr=fast", 14, "fast"),
        ("optimizer.lr= fast", 15, "fast"),
        ("optimizer.lrr=1", 1, "optimizer.lrr=1"),
        ("model={name: convnext_atto, drop_path_rate: 3}", 45, "3}"),
        ("model={name: convnext_atto, depths: [1]}", 29, "depths"),
        ("augmentations.mixup_cutmix.mixup_alpha=-1", 40, "-1"),
        ("model=convnext_atti", 7, "convnext_atti"),
        ("optimizer.betas=[0.9, 2]", 23, "2]"),
        ("training={batch_size: 10}", 1, "training="),
    ],
)
def test_an_error_in_an_override_points_into_the_override(problem, override, column, caret, whole):
    found = problem(whole, override)
    assert (found.place.source, found.place.line, found.place.column) == ("override", 1, column)
    assert pointed(found).startswith(caret)


def test_a_relative_path_is_shown_as_it_was_typed(write, monkeypatch):
    path = write("nme: x\n", "mine.yaml")
    monkeypatch.chdir(path.parent)
    with pytest.raises(RecipeError, match=textwrap.dedent(r"""^mine\.yaml:1:1: """)):
        load_recipe("mine.yaml", plugins=False)
