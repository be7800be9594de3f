"""A tiny recipe that lists one of the shipped example plugins."""

from collections.abc import Callable
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
TINY = """
input_size: 32
model: {name: convnext, depths: [1, 1, 1, 1], dims: [4, 8, 8, 8]}
data: {name: synthetic, train_images: 32, val_images: 8, num_classes: 4, workers: 0}
optimizer: {name: adamw, lr: 1e-3}
scheduler: constant
training: {batch_size: 8, epochs: 2}
logging: {every_steps: 1, to: [jsonl]}
"""


@pytest.fixture
def recipe_with(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Writes the tiny recipe with a plugin listed and some sections replaced; the working folder is its own."""
    monkeypatch.chdir(tmp_path)

    def write(plugin: str, **sections: str) -> Path:
        kept = [line for line in TINY.strip().splitlines() if line.partition(":")[0] not in sections]
        replaced = [f"{key}: {value}" for key, value in sections.items()]
        recipe = tmp_path / "tiny.yaml"
        recipe.write_text("\n".join([f"plugins: [{PLUGINS / plugin}]", *kept, *replaced]) + "\n")
        return recipe

    return write
