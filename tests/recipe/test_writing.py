import pytest
from hypothesis import given
from hypothesis import strategies as st

from convrun.recipe import load_recipe
from convrun.recipe.scalars import is_unicode
from convrun.recipe.tree import read_text
from convrun.recipe.writing import origins_text, recipe_yaml, to_yaml

ODD = [
    *(
        "1e3",
        "0o17",
        "0x1F",
        "4e-3",
        "1_000",
        "on",
        "yes",
        "null",
        "~",
        "",
        "true",
        ".inf",
        ".nan",
        "+12",
        "2020-01-01",
    ),
    *(
        "12:30",
        "=",
        "<<",
        "- a",
        "a: b",
        "#",
        " x ",
        "x\ny",
        "x\n\n y\n",
        "\nx",
        "'",
        '"',
        "\x85",
        "a\u2028b",
        "\ufeff",
    ),
]
TEXT = st.text(max_size=40).filter(is_unicode) | st.sampled_from(ODD)
KEYS = TEXT.filter(lambda key: key != "<<")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "on", "1e3"]), VALUES, max_size=4))
def test_data_written_as_yaml_are_the_same_data_when_read(data):
    assert read_text(to_yaml(data), "test").plain() == (data or {})


@pytest.mark.parametrize("text", ["1e3", "0o17", "0x1F", "4e-3", "on", "null", "2020-01-01"])
def test_text_that_either_yaml_would_misread_is_quoted(text):
    assert to_yaml({"a": text}) == f"a: '{text}'\n"


def test_plain_words_lists_of_numbers_and_paragraphs_read_well():
    written = to_yaml({"a": "word", "b": [1, 2.5], "c": "two\nlines\n", "d": [{"name": "x"}], "e": 1e-6})
    assert written == "a: word\nb: [1, 2.5]\nc: |\n  two\n  lines\nd:\n- name: x\ne: 1.0e-06\n"


def test_an_empty_map_is_a_map():
    assert to_yaml({"a": {}, "b": []}) == "a: {}\nb: []\n"


def test_a_resolved_recipe_spells_defaults_out():
    text = recipe_yaml(load_recipe("digits_demo", plugins=False))
    assert "betas: [0.9, 0.999]" in text
    assert "extends" not in text


def test_each_value_has_one_line_with_its_origin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("extends: digits_demo\nname: mine\noptimizer: {lr: 1e-2}\n")
    recipe = load_recipe(
        "mine.yaml", ["augmentations.mixup_cutmix.mixup_alpha=0.3", "data.mean=[0, 0, 0]"], plugins=False
    )
    rows = dict(line.split("  # ") for line in origins_text(recipe).splitlines())
    told = {key.rstrip(): origin for key, origin in rows.items()}
    assert told["optimizer.lr: 0.01"] == "mine.yaml:3:17"
    assert told["augmentations.1.mixup_alpha: 0.3"] == "override augmentations.mixup_cutmix.mixup_alpha=0.3"
    assert told["data.mean: [0.0, 0.0, 0.0]"] == "override data.mean=[0, 0, 0]"
    assert told["optimizer.eps: 1.0e-08"] == "default"
    assert told["augmentations.0.scale: [0.6, 1.0]"].partition(":")[0].endswith("recipes/digits_demo.yaml")
