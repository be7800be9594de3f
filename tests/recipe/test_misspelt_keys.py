"""Misspells every key of whole recipes, one at a time: the message must name the right line and the right key."""

from __future__ import annotations

import pytest

from convrun.display.recipe_text import recipe_yaml
from convrun.errors import RecipeError
from convrun.recipe import load_recipe, shipped_recipes
from convrun.recipe.tree import read_text


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
    children = node.value.items() if isinstance(node.value, dict) else enumerate(node.value)
    for step, child in children if isinstance(node.value, dict | list) else ():
        if isinstance(step, str):
            yield (*path, step), child.key_place
        yield from keys_below(child, (*path, step))


def texts():
    shipped = shipped_recipes()
    yield "as written", shipped["convnext_tiny_in1k"].read_text()
    for name in ("digits_demo", "convnext_tiny_in1k", "convnext_base_in22k_in1k"):
        yield f"{name} resolved", recipe_yaml(load_recipe(shipped[name], plugins=False))


@pytest.mark.parametrize(("what", "text"), [pytest.param(*pair, id=pair[0]) for pair in texts()])
@pytest.mark.parametrize("slip", SLIPS)
def test_a_misspelt_key_is_found_in_its_line_and_its_name_is_told(write, what, text, slip):
    tested = 0
    lines = text.splitlines(keepends=True)
    for path, place in keys_below(read_text(text, "test")):
        siblings = {p[-1] for p, _ in keys_below(read_text(text, "test")) if p[:-1] == path[:-1]}
        wrong, (line, start) = slip(path[-1]), (place.line - 1, place.column - 1)
        if wrong in siblings:
            continue
        row = lines[line][:start] + wrong + lines[line][start + len(path[-1]) :]
        source = write("".join([*lines[:line], row, *lines[line + 1 :]]))
        with pytest.raises(RecipeError) as caught:
            load_recipe(source, plugins=False)
        found = caught.value.problems[0]
        assert len(caught.value.problems) == 1, caught.value
        assert (found.place.line, found.place.column) == (place.line, place.column), found.render()
        assert found.message == "unknown key"
        assert found.cure == f"did you mean {path[-1]}?", found.render()
        tested += 1
    assert tested >= (60 if "resolved" in what else 8)
