import pytest

from convrun.recipe.problems import Place, Problem, dotted, excerpt
from convrun.text.wording import is_one_slip, listed, nearest


def test_a_problem_is_one_line_with_place_key_message_and_cure_then_the_source_and_a_caret():
    problem = Problem(Place("a.yaml", 3, 5, "    lr: x"), ("optimizer", "lr"), "must be a number", "write 1e-3")
    assert problem.render() == "a.yaml:3:5: optimizer.lr: must be a number; write 1e-3\n    lr: x\n    ^"


def test_a_problem_without_a_line_is_one_line():
    assert Problem(Place("a.yaml", 0, 0), (), "is empty").render() == "a.yaml: is empty"
    assert Problem(None, ("ema",), "is empty").render() == "ema: is empty"


def under(text, column):
    """What the caret points at, on a terminal of one column a character."""
    line, caret = excerpt(text, column)
    return line[len(caret) - 1 :]


@pytest.mark.parametrize("indent", ["", "  ", " " * 60, "\t", " \t "])
def test_the_caret_is_under_the_column_whatever_the_indentation(indent):
    text = f"{indent}lr: wrong"
    assert under(text, text.index("wrong") + 1) == "wrong"
    assert under(text, len(indent) + 1) == "lr: wrong"


def test_a_caret_past_the_end_of_the_line_stands_after_it():
    assert excerpt("abc", 4) == ("abc", "   ^")
    assert excerpt("abc", 99) == ("abc", "   ^")


def test_wide_characters_take_two_columns():
    assert excerpt("日本: x", 5) == ("日本: x", " " * 6 + "^")


def test_tabs_and_control_characters_within_a_line_are_shown_as_spaces():
    assert excerpt("a:\tb\x1b[31m", 4) == ("a: b [31m", "   ^")


@pytest.mark.parametrize("at", [0, 50, 500, 5000, 9999])
def test_of_a_long_line_only_the_part_around_the_caret_is_shown(at):
    text = "".join(f"{i:05d}" for i in range(2000))
    line, caret = excerpt(text, at + 1)
    assert len(line) <= 112
    assert line.strip("…") in text
    assert line[len(caret) - 1 :].startswith(text[at : at + 1])
    assert line.startswith("…") == (at > 60)
    assert line.endswith("…") == (at < 9000)


def test_a_path_reads_as_an_override_would_and_hides_no_control_character():
    assert dotted(("augmentations", 2, "policy")) == "augmentations.2.policy"
    assert dotted(("a\nb",)) == "a\\nb"
    assert len(dotted(("x" * 5000,))) < 200


@pytest.mark.parametrize(
    ("a", "b"), [("lr", "l"), ("l", "lr"), ("lr", "rl"), ("lr", "lx"), ("epochs", "epcohs"), ("epochs", "eepochs")]
)
def test_one_letter_dropped_added_changed_or_swapped_is_one_slip(a, b):
    assert is_one_slip(a, b)
    assert is_one_slip(b, a)


@pytest.mark.parametrize(("a", "b"), [("lr", "lr"), ("lr", "xy"), ("abc", "cba"), ("abcd", "badc"), ("ab", "abcd")])
def test_none_or_two_are_not_one_slip(a, b):
    assert not is_one_slip(a, b)


def test_a_slip_wins_over_a_more_similar_name():
    # difflib finds `every_epochs` nearer to `epochs_` by its ratio than one slip allows.
    assert nearest("epoch", ["every_epochs", "epochs", "steps"]) == "epochs"
    assert nearest("qqq", ["epochs", "steps"]) is None


def test_long_lists_say_how_many_more():
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert listed(["a", "b"], 2) == "a, b"
