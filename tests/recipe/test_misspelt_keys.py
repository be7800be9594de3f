"""Misspells every key of whole recipes, one at a time: the message must name the right line and the right key."""

from __future__ import annotations

import pytest

from convrun.recipe import load_recipe, shipped_recipes
from convrun.recipe.problems import RecipeError
from convrun.recipe.tree import read_text
from convrun.recipe.writing import recipe_yaml


def dropped(word):
    return word[: len(word) // 2] + word[len(word) // 2 + 1 :]


def doubled(word):
    return word[: len(word) // 2] + word[len(word) // 2] + word[len(word) // 2 :]


def swapped(word):
    i = next(i for i in range(len(word) - 1) if word[i] != word[i + 1])
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]


def changed(word):
    return word[: len(word) // 2] + "q" + word[len(word) // 2 + 1 :]


SLIPS = [dropped, doubled, swapped, changed]


def keys_below(node, path=()):
    """(path, place) of every key of a tree."""
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield (*path, key), child.key_place
            yield from keys_below(child, (*path, key))
    elif isinstance(node.value, list):
        for i, child in enumerate(node.value):
            yield from keys_below(child, (*path, i))


def texts():
    shipped = shipped_recipes()
    yield "as written", shipped["convnext_tiny_in1k"].read_text()
    for name in ("digits_demo", "convnext_tiny_in1k", "convnext_base_in22k_in1k"):
        yield f"{name} resolved", recipe_yaml(load_recipe(shipped[name], plugins=False))


@pytest.mark.parametrize(("what", "text"), [pytest.param(*pair, id=pair[0]) for pair in texts()])
@pytest.mark.parametrize("slip", SLIPS)
def test_a_misspelt_key_is_found_in_its_line_and_its_name_is_told(write, what, text, slip):
    lines, failures, tested = text.splitlines(keepends=True), [], 0
    keys = list(keys_below(read_text(text, "test")))
    for path, place in keys:
        wrong, key = slip(path[-1]), path[-1]
        if (*path[:-1], wrong) in [p for p, _ in keys]:
            continue
        line, start = lines[place.line - 1], place.column - 1
        misspelt = line[:start] + wrong + line[start + len(key) :]
        source = write("".join([*lines[: place.line - 1], misspelt, *lines[place.line :]]))
        with pytest.raises(RecipeError) as caught:
            load_recipe(source, plugins=False)
        told = [((p.place.line, p.place.column), p.message, p.cure) for p in caught.value.problems]
        wanted = [((place.line, place.column), "unknown key", f"did you mean {key}?")]
        failures += [(path, wrong, told)] if told != wanted else []
        tested += 1
    assert failures == []
    assert tested >= (60 if "resolved" in what else 8)
