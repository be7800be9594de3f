"""The shipped recipes, trained."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from convrun.display.screen import Screen
from convrun.recipe import load_recipe
from convrun.training.run import run


@pytest.fixture
def tree(tmp_path):
    """2 classes of photo-like JPEGs of several sizes: 12 for training and 5 for validation each."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for label in range(2):
            folder = tmp_path / "images" / split / f"n{label:08}"
            folder.mkdir(parents=True)
            for number in range(count):
                small = draws.integers(0, 256, (4, 5, 3), dtype=np.uint8)
                size = (int(draws.integers(40, 60)), int(draws.integers(40, 60)))
                Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.JPEG")
    return tmp_path / "images"


def test_the_real_recipe_trains_on_a_small_tree(tree, tmp_path, rows):
    """convnext_tiny_in1k in all but the model and the sizes: RandAugment, erasing, mixing, EMA, two loader workers."""
    overrides = [
        *(f"data.root={tree}", "data.num_classes=2", "data.train_images=24", "data.val_images=10", "data.workers=2"),
        *("training.batch_size=8", "training.micro_batch=4", "training.epochs=2", "scheduler.warmup_epochs=1"),
        *("input_size=32", "model.name=convnext_atto", "model.drop_path_rate=0.1"),
    ]
    recipe = load_recipe("convnext_tiny_in1k", overrides, plugins=False)
    names = [choice.name for choice in recipe.augmentations]
    assert names == ["random_resized_crop", "horizontal_flip", "rand_augment", "random_erasing", "mixup_cutmix"]
    outcome = run(recipe, tmp_path / "run", device="cpu", screen=Screen(io.StringIO()))
    assert outcome.step == 2 * 24 // 8
    evaluations = [row for row in rows(tmp_path / "run") if row["kind"] == "eval"]
    assert [(row["step"], row["weights"], row["images"]) for row in evaluations] == [
        (3, "model", 10), (3, "ema", 10), (6, "model", 10), (6, "ema", 10)
    ]  # fmt: skip
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"
    assert len(list((tmp_path / "run" / "weights").glob("*.safetensors"))) == 4
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_the_demo_reaches_98_percent(tmp_path):
    torch.set_num_threads(1)  # tests run two at a time
    recipe = load_recipe("digits_demo", plugins=False)
    outcome = run(recipe, tmp_path / "run", device="cpu", screen=Screen(io.StringIO()))
    # Seeds 0, 1 and 2 reach 99.44, 98.89 and 98.89; an image of the 359 is 0.28.
    assert outcome.top1 >= 98
