import pytest
from hypothesis import given
from hypothesis import strategies as st

from convrun.errors import UsageError
from convrun.importing import import_arguments
from convrun.importing.writing import WIDTH, Draft
from convrun.recipe.tree import read_text


def read_back(draft):
    return read_text(draft.render(["head"]), "x").plain()


def test_sections_come_in_the_usual_order_with_their_comments():
    draft = Draft()
    draft.set("training.epochs", 3, "--epochs 3", "--epochs")
    draft.set("seed", 1)
    item = draft.item("augmentations", "rand_augment")
    draft.set(f"{item}.policy", "rand-m9", "--aa rand-m9", "--aa")
    draft.differs.append("something")
    assert draft.render(["from here"]).splitlines() == [
        "# from here",
        "#",
        "# What differs from the command:",
        "# - something",
        "seed: 1",
        "augmentations:",
        "  - name: rand_augment",
        "    policy: rand-m9     # --aa",
        "training:",
        "  epochs: 3             # --epochs",
    ]


FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff"))


@given(st.one_of(FINITE, st.integers(-(10**20), 10**20), st.booleans(), st.none(), TEXT, st.lists(FINITE)))
def test_a_value_is_read_back_as_it_was_written(value):
    draft = Draft()
    draft.set("model.options", value)
    found = read_back(draft)["model"]["options"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["on", "1e-3", "null", "", "a: b", "# a", "${env:X}", "- a", "true", "0x1f", "~"])
def test_text_that_yaml_would_take_for_something_else_is_quoted(text):
    draft = Draft()
    draft.set("name", text)
    assert read_back(draft) == {"name": text}


@given(st.text().map(lambda text: "".join(c for c in text if c.isprintable() or c.isspace())))
def test_no_comment_breaks_the_yaml(comment):
    draft = Draft()
    draft.set("seed", 1, comment=comment)
    draft.hints.append(comment)
    assert read_back(draft) == {"seed": 1}


def test_long_comments_stand_above_their_line():
    draft = Draft()
    draft.set("training.epochs", 3, comment="word " * 40)
    lines = draft.render([]).splitlines()
    assert lines[0] == "training:"
    assert all(line.startswith("  # word") for line in lines[1:-1])
    assert lines[-1] == "  epochs: 3"
    assert max(map(len, lines)) <= WIDTH


def test_what_the_recipe_refuses_is_told_by_the_flag():
    draft = Draft()
    draft.set("training.epochs", -1, "--epochs -1", "--epochs")
    with pytest.raises(UsageError) as error:
        draft.check(draft.render([]))
    assert "--epochs -1: training.epochs must be greater than 0 or null, got -1" in str(error.value)


def test_a_variable_of_the_shell_becomes_one_of_the_recipe():
    found = import_arguments(["python main.py --data_path $NOT_SET_HERE/in1k"])
    assert 'root: "${env:NOT_SET_HERE}/in1k"' in found.text
