"""A small whole recipe, and short ways to load one and to see what is wrong with it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from convrun.recipe import Recipe, load_recipe
from convrun.recipe.problems import Problem, RecipeError

WHOLE = """\
name: small
input_size: 32
model: {name: convnext_atto, drop_path_rate: 0.1}
data: {name: synthetic, train_images: 100, val_images: 20}
augmentations:
  - {name: horizontal_flip}
  - {name: mixup_cutmix, mixup_alpha: 0.8}
optimizer: {name: adamw, lr: 4e-3}
scheduler: {name: cosine, warmup_epochs: 2}
training: {epochs: 5, batch_size: 10}
"""


@pytest.fixture
def whole() -> str:
    """The text of a recipe with nothing wrong in it."""
    return WHOLE


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe file: text (its common indentation goes) or bytes."""

    def write(text: str | bytes, name: str = "small.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return path

    return write


@pytest.fixture
def load(write: Callable[..., Path]) -> Callable[..., Recipe]:
    """Writes a recipe and loads it."""

    def load(text: str | bytes = WHOLE, *overrides: str, name: str = "small.yaml") -> Recipe:
        return load_recipe(write(text, name), overrides, plugins=False)

    return load


@pytest.fixture
def problems(load: Callable[..., Recipe]) -> Callable[..., Sequence[Problem]]:
    """The problems of a recipe, which must have some."""

    def problems(text: str | bytes = WHOLE, *overrides: str) -> Sequence[Problem]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides)
        return caught.value.problems

    return problems


@pytest.fixture
def problem(problems: Callable[..., Sequence[Problem]]) -> Callable[..., Problem]:
    """The only problem of a recipe."""

    def problem(text: str | bytes = WHOLE, *overrides: str) -> Problem:
        found = problems(text, *overrides)
        assert len(found) == 1, [p.render() for p in found]
        return found[0]

    return problem
