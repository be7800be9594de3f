"""The words of `convrun launch` -> overrides of the recipe.

`KEY=VALUE` with a dot in KEY is an override as everywhere. Without a dot it is a key of the launcher, if that has it;
else a key or section at the top of the recipe (`seed=1`, `model=convnext_small`).
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from convrun.keys import Key, keys_of_section
from convrun.recipe.problems import Place, Problem, RecipeError
from convrun.recipe.sections import ORDER, Header
from convrun.registry import Component
from convrun.text.wording import listed, nearest


def overrides_of(words: Sequence[str], launcher: Component) -> list[str]:
    """The words as overrides of the recipe, in order.

    Raises:
        RecipeError: names every word that is a key of neither the launcher nor the recipe.
    """
    problems, overrides = [], []
    for word in words:
        key = word.partition("=")[0].strip()
        if key in launcher.keys.keys:
            overrides.append(_of_launcher(word, launcher.keys.keys[key]))
        elif "." in key or key in top_level_keys():
            overrides.append(word)
        else:
            problems.append(_unknown(word, key, launcher))
    if problems:
        raise RecipeError(problems)
    return overrides


def top_level_keys() -> set[str]:
    """What may stand at the top of a recipe."""
    return {*ORDER, *(key.name for key in keys_of_section(Header)), "logging"}


def is_launcher_key(word: str, launcher: Component) -> bool:
    """Whether KEY=VALUE sets a key of the launcher."""
    key = word.partition("=")[0].strip()
    return key in launcher.keys.keys or key == "launcher" or key.startswith("launcher.")


def _of_launcher(word: str, key: Key) -> str:
    """`account=123` is text where the key is text, and one word is a list of one where it is a list of texts."""
    value = word.partition("=")[2].strip()
    kinds = _kinds(key.annotation)
    if value and value != "null" and kinds <= {str, type(None)} and value[0] not in "\"'":
        value = json.dumps(value, ensure_ascii=False)
    elif value and kinds == {tuple} and not value.startswith("["):
        value = json.dumps([value], ensure_ascii=False)
    return f"launcher.{key.name}={value}"


def _kinds(annotation: Any) -> set[Any]:
    """The plain types that an annotation allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return {kind for member in get_args(annotation) for kind in _kinds(member)}
    if origin is typing.Literal:
        return {type(value) for value in get_args(annotation)}
    return {origin or annotation}


def _unknown(word: str, key: str, launcher: Component) -> Problem:
    names = sorted(launcher.keys.keys)
    ours, recipes = nearest(key, names), nearest(key, top_level_keys())
    guesses = [f"{ours} (launcher/{launcher.name})"] if ours else []
    guesses += [f"{recipes} (the recipe)"] if recipes else []
    cure = f"did you mean {' or '.join(guesses)}?" if guesses else f"launcher/{launcher.name} takes {listed(names, 40)}"
    message = f"is neither a key of launcher/{launcher.name} nor at the top of a recipe"
    return Problem(Place("override", 1, 1, " ".join(word.splitlines())), (key,), message, cure)
