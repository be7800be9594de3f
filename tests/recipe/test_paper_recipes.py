"""The shipped recipes are the paper's: every hyper-parameter of every recipe against a table typed from its facts.

The figures are those of "A ConvNet for the 2020s" (arXiv:2201.03545), its released training code and README.
"""

from __future__ import annotations

from typing import Any

import pytest

from convrun.plan import Machine, Plan, make_plan
from convrun.recipe import Recipe, load_recipe, shipped_recipes

PRETRAIN_AUGMENTATIONS = ["random_resized_crop", "horizontal_flip", "rand_augment", "random_erasing", "mixup_cutmix"]
SCRATCH: dict[str, Any] = {
    "input": 224, "classes": 1000, "train_images": 1_281_167, "val_images": 50_000, "batch": 4096, "lr": 4e-3,
    "epochs": 300, "warmup": 20, "weight_decay": 0.05, "layer_decay": 1.0, "mixes": True, "ema": 0.9999,
    "report": "ema", "layer_scale": 1e-6, "from": None, "head": None, "micro": 128,
}  # fmt: skip
IN22K = SCRATCH | {
    "classes": 21_841, "train_images": 14_197_122, "val_images": 0, "epochs": 90, "warmup": 5, "ema": None,
    "report": None, "top1": None, "micro": 32,
}  # fmt: skip
FINETUNE = SCRATCH | {
    "batch": 512, "lr": 5e-5, "epochs": 30, "warmup": 0, "weight_decay": 1e-8, "layer_decay": 0.8, "mixes": False,
    "ema": None, "report": "model", "head": ("reinit", 0.001), "micro": 32,
}  # fmt: skip
XLARGE_EMA = {"ema": 0.9999, "report": "ema"}

PAPER: dict[str, dict[str, Any]] = {
    "convnext_tiny_in1k": SCRATCH | {"drop_path": 0.1, "top1": 82.1},
    "convnext_small_in1k": SCRATCH | {"drop_path": 0.4, "top1": 83.1},
    "convnext_base_in1k": SCRATCH | {"drop_path": 0.5, "top1": 83.8},
    "convnext_large_in1k": SCRATCH | {"drop_path": 0.5, "top1": 84.3, "micro": 64},
    "convnext_isotropic_small_in1k": SCRATCH | {"drop_path": 0.1, "warmup": 50, "layer_scale": None, "top1": 78.7},
    "convnext_isotropic_base_in1k": SCRATCH | {"drop_path": 0.2, "warmup": 50, "layer_scale": None, "top1": 82.0},
    "convnext_isotropic_large_in1k": SCRATCH | {"drop_path": 0.5, "warmup": 50, "top1": 82.6, "micro": 64},
    "convnext_tiny_in22k": IN22K | {"drop_path": 0.0},
    "convnext_small_in22k": IN22K | {"drop_path": 0.0},
    "convnext_base_in22k": IN22K | {"drop_path": 0.1},
    "convnext_large_in22k": IN22K | {"drop_path": 0.1},
    "convnext_xlarge_in22k": IN22K | {"drop_path": 0.2},
    "convnext_base_in1k_384": FINETUNE
    | {"input": 384, "drop_path": 0.8, "layer_decay": 0.7, "top1": 85.1, "from": "timm:convnext_base.fb_in1k"}
    | {"head": ("keep", 1.0)},
    "convnext_large_in1k_384": FINETUNE
    | {"input": 384, "drop_path": 0.95, "layer_decay": 0.7, "top1": 85.5, "from": "timm:convnext_large.fb_in1k"}
    | {"head": ("keep", 1.0)},
}
for _size, _drop_path, _at_224, _at_384 in (
    ("tiny", 0.0, 82.9, 84.1),
    ("small", 0.1, 84.6, 85.8),
    ("base", 0.2, 85.8, 86.8),
    ("large", 0.3, 86.6, 87.5),
    ("xlarge", 0.4, 87.0, 87.8),
):
    _own = {"drop_path": _drop_path, "from": f"timm:convnext_{_size}.fb_in22k"}
    _own |= XLARGE_EMA if _size == "xlarge" else {}
    _micro = {224: 16, 384: 8} if _size == "xlarge" else {224: 32, 384: 16}
    PAPER[f"convnext_{_size}_in22k_in1k"] = FINETUNE | _own | {"top1": _at_224, "micro": _micro[224]}
    PAPER[f"convnext_{_size}_in22k_in1k_384"] = FINETUNE | _own | {"top1": _at_384, "input": 384, "micro": _micro[384]}

# Values quoted from memory of the paper's appendix, and not checked; the recipe must say so.
REMEMBERED = (
    "convnext_tiny_in22k", "convnext_small_in22k", "convnext_tiny_in22k_in1k", "convnext_small_in22k_in1k",
    "convnext_tiny_in22k_in1k_384", "convnext_small_in22k_in1k_384",
)  # fmt: skip


def load(name: str) -> tuple[Recipe, Plan]:
    recipe = load_recipe(name, plugins=False)
    return recipe, make_plan(recipe, Machine())


def written(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """What the table has a column for, read off the recipe."""
    optimizer, scheduler = recipe.optimizer.values, recipe.scheduler.values
    return {
        "input": recipe.input_size,
        "classes": plan.num_classes,
        "train_images": plan.train_images,
        "val_images": plan.val_images,
        "batch": recipe.training.batch_size,
        "lr": optimizer["lr"],
        "epochs": recipe.training.epochs,
        "warmup": scheduler["warmup_epochs"],
        "weight_decay": optimizer["weight_decay"],
        "layer_decay": optimizer["layer_decay"],
        "mixes": "mixup_cutmix" in [choice.name for choice in recipe.augmentations],
        "ema": recipe.ema.decay if recipe.ema else None,
        "report": recipe.evaluation.report if recipe.evaluation else None,
        "layer_scale": recipe.model.values["layer_scale_init"],
        "drop_path": recipe.model.values["drop_path_rate"],
        "top1": recipe.expect.top1 if recipe.expect else None,
        "from": recipe.init.from_ if recipe.init else None,
        "head": (recipe.init.head, recipe.init.head_init_scale) if recipe.init else None,
        "micro": recipe.training.micro_batch,
    }


@pytest.mark.parametrize("name", PAPER)
def test_every_number_is_the_papers(name):
    assert written(*load(name)) == PAPER[name]


@pytest.mark.parametrize("name", PAPER)
def test_what_is_always_on_is_on(name):
    """RandAugment, erasing, smoothing, AdamW without clipping, min lr, float32: in fine-tuning too."""
    recipe, plan = load(name)
    expected = PRETRAIN_AUGMENTATIONS if PAPER[name]["mixes"] else PRETRAIN_AUGMENTATIONS[:-1]
    assert [choice.name for choice in recipe.augmentations] == expected
    augmentations = {choice.name: choice.values for choice in recipe.augmentations}
    assert augmentations["random_resized_crop"]["scale"] == (0.08, 1.0)
    assert augmentations["random_resized_crop"]["ratio"] == pytest.approx((3 / 4, 4 / 3))
    assert augmentations["random_resized_crop"]["interpolation"] == "bicubic"
    assert augmentations["horizontal_flip"]["probability"] == 0.5
    assert augmentations["rand_augment"]["policy"] == "rand-m9-mstd0.5-inc1"
    erasing = augmentations["random_erasing"]
    assert (erasing["probability"], erasing["mode"], erasing["count"]) == (0.25, "pixel", 1)
    if PAPER[name]["mixes"]:
        mixing = augmentations["mixup_cutmix"]
        assert (mixing["mixup_alpha"], mixing["cutmix_alpha"]) == (0.8, 1.0)
        assert (mixing["probability"], mixing["switch_probability"]) == (1.0, 0.5)
    assert recipe.loss.as_written() == {"name": "cross_entropy", "label_smoothing": 0.1}
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.values["betas"], optimizer.values["eps"]) == ("adamw", (0.9, 0.999), 1e-8)
    assert optimizer.values["lr_for_batch"] is None
    assert optimizer.values["layer_decay_levels"] == "group"
    scheduler = recipe.scheduler
    assert (scheduler.name, scheduler.values["min_lr"], scheduler.values["warmup_start_lr"]) == ("cosine", 1e-6, 0.0)
    assert (plan.training.clip_grad_norm, plan.precision, plan.training.compile) == (None, "float32", False)
    assert (plan.data.settings.mean, plan.data.settings.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("name", PAPER)
def test_evaluation_is_the_released_one(name):
    """Below 384 the short side is resized to size / 0.875 and the centre cropped; from 384 on to the square."""
    recipe, plan = load(name)
    if recipe.evaluation is not None:
        assert plan.crop_ratio == (0.875 if recipe.input_size < 384 else None)
        assert plan.evaluation.interpolation == "bicubic"
        assert plan.evaluation_interval == plan.steps_per_epoch


@pytest.mark.parametrize("name", PAPER)
def test_steps_are_the_released_codes(name):
    """floor(images / batch) steps an epoch: 312 at 4096 and 2,502 at 512 on ImageNet-1K, 3,466 on ImageNet-22K."""
    _, plan = load(name)
    per_epoch = {(1_281_167, 4096): 312, (1_281_167, 512): 2502, (14_197_122, 4096): 3466}
    assert plan.steps_per_epoch == per_epoch[plan.train_images, plan.training.batch_size]
    assert plan.total_steps == plan.steps_per_epoch * PAPER[name]["epochs"]


@pytest.mark.parametrize("name", REMEMBERED)
def test_a_value_that_was_not_checked_says_so(name):
    assert "was not checked" in " ".join(load(name)[0].notes.split())


@pytest.mark.parametrize("name", ["convnext_tiny_in22k_in1k", "convnext_tiny_in22k_in1k_384"])
def test_layer_decay_for_tiny_is_called_our_own(name):
    assert "our own choice" in " ".join(load(name)[0].notes.split())


# Batch, lr, epochs, warm-up, decay, drop path, layer decay, its levels, smoothing, top-1: V2's released commands.
V2 = {
    "convnextv2_atto_fcmae_in1k": (1024, 8e-4, 600, 0, 0.3, 0.1, 0.9, "block", 0.2, 76.7, False),
    "convnextv2_tiny_fcmae_in1k": (1024, 3.2e-3, 300, 40, 0.05, 0.2, 0.9, "block", 0.1, 83.0, True),
    "convnextv2_base_fcmae_in1k": (1024, 2.5e-3, 100, 20, 0.05, 0.1, 0.6, "group", 0.1, 84.9, True),
}


@pytest.mark.parametrize("name", V2)
def test_v2_fine_tunings_are_those_of_the_released_commands(name):
    recipe, plan = load(name)
    optimizer = recipe.optimizer.values
    assert recipe.expect is not None and recipe.init is not None and recipe.ema is not None
    assert V2[name] == (
        plan.training.batch_size, optimizer["lr"], recipe.training.epochs, recipe.scheduler.values["warmup_epochs"],
        optimizer["weight_decay"], recipe.model.values["drop_path_rate"], optimizer["layer_decay"],
        optimizer["layer_decay_levels"], recipe.loss.values["label_smoothing"], recipe.expect.top1,
        "mixup_cutmix" in [choice.name for choice in recipe.augmentations],
    )  # fmt: skip
    assert (recipe.init.head, recipe.init.head_init_scale) == ("reinit", 0.001)
    assert recipe.init.from_ == f"timm:{recipe.model.name}.fcmae"
    assert (recipe.ema.decay, plan.report, plan.precision) == (0.9999, "ema", "fp16")


def test_the_4090_training_is_as_published_and_its_correction_differs_in_two_things():
    from convrun.recipe.consistency import differences

    published, plan = load("convnext_base_miniimagenet_4090")
    corrected, _ = load("convnext_base_miniimagenet_4090_corrected")
    optimizer, scheduler = published.optimizer, published.scheduler
    assert (optimizer.name, optimizer.values["lr"], optimizer.values["weight_decay"]) == ("adamp", 4e-3, 0.05)
    training = plan.training
    assert (training.batch_size, training.epochs, plan.precision, training.compile) == (160, 300, "fp16", True)
    assert training.clip_grad_norm == 1.0
    assert (scheduler.values["warmup_epochs"], scheduler.values["warmup_start_lr"]) == (5, 1e-6)
    assert scheduler.values["min_lr"] == 2e-6
    assert plan.evaluation_interval == 10 * (50_000 // 160)
    assert (plan.crop_ratio, plan.num_classes, plan.data_classes) == (0.875, 1000, 100)
    assert published.model.values["drop_path_rate"] == 0.2
    assert published.model.values["layer_scale_init"] == 1e-6
    assert published.expect is not None and published.expect.top1 == 83.64
    before, after = ({k: v for k, v in r.resolved().items() if k not in ("name", "summary", "notes", "expect")}
                     for r in (published, corrected))  # fmt: skip
    assert {key for key, _, _ in differences(before, after)} == {"model.num_classes", "data.mean", "data.std"}
    assert corrected.data.values["mean"] == (0.485, 0.456, 0.406)


def test_the_table_covers_every_shipped_paper_recipe():
    """A recipe that ships is pinned by a test of this file, or is one of ours."""
    ours = {"digits_demo", "convnext_tiny_cifar100", "convnext_base_miniimagenet_4090"}
    ours |= {"convnext_base_miniimagenet_4090_corrected"}
    assert set(shipped_recipes()) == set(PAPER) | set(V2) | ours
