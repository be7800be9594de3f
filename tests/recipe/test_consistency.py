"""What contradicts, or can have no effect, although each section is fine."""

import pytest

from convrun.recipe.consistency import differences


@pytest.mark.parametrize(
    ("overrides", "path", "message"),
    [
        (["training.steps=7"], "training.steps", "epochs and steps are both given; keep one: training.epochs=null"),
        (["training.epochs=null"], "training", "neither epochs nor steps is given; give one"),
        (["evaluation={every_epochs: 1, every_steps: 2}"], "evaluation.every_steps", "both given; keep one"),
        (["evaluation.every_epochs=null"], "evaluation", "neither every_epochs nor every_steps is given; give one"),
        (["checkpoints={every_epochs: 1, every_steps: 2}"], "checkpoints.every_steps", "both given; keep one"),
        (
            ["optimizer={name: sgd, lr: 0.1, momentum: 0, nesterov: true}"],
            "optimizer.nesterov",
            "has no effect without momentum; set momentum above 0",
        ),
        (["evaluation.report=ema"], "evaluation.report", "reports the EMA, but the recipe keeps none; add ema"),
        (["expect={top1: 80, weights: ema}"], "expect.weights", "expects a result of the EMA, but the recipe keeps"),
        (
            ["callbacks=[{name: early_stopping, patience: 3, weights: ema}]"],
            "callbacks.0.weights",
            "watches the EMA, but the recipe keeps none; add ema",
        ),
        (
            ["evaluation=null", "callbacks=[{name: early_stopping, patience: 3}]"],
            "callbacks.0",
            "callbacks act on evaluations, but",
        ),
        (["evaluation=null", "checkpoints.keep.best=2"], "checkpoints.keep.best", "there is no best checkpoint"),
        (
            ["augmentations=[rand_augment, color_jitter]"],
            "augmentations.1",
            "color_jitter cannot be combined with rand_augment: RandAugment replaces colour jitter",
        ),
        (
            ["augmentations=[color_jitter, rand_augment]"],
            "augmentations.1",
            "rand_augment cannot be combined with color",
        ),
        (["augmentations=[rand_augment, trivial_augment]"], "augmentations.1", "a whole augmentation policy"),
        (["augmentations=[random_resized_crop, random_crop]"], "augmentations.1", "both bring the image to the input"),
        (["augmentations=[horizontal_flip, horizontal_flip]"], "augmentations.1", "horizontal_flip is listed twice"),
        (["augmentations=[mixup_cutmix, random_erasing]"], "augmentations.1", "list it before mixup_cutmix"),
        (
            ["augmentations=[mixup_cutmix, horizontal_flip]"],
            "augmentations.1",
            "works on one image in a loader worker, so it cannot follow mixup_cutmix; list it before mixup_cutmix",
        ),
        (["logging.to=[console]"], "logging.to", "jsonl is missing: resume, status and report read metrics.jsonl"),
        (["logging.to=[jsonl, csv, jsonl]"], "logging.to.2", "jsonl is listed twice; keep one"),
        (["optimizer.layer_decay_levels=block"], "optimizer.layer_decay_levels", "has no effect without layer_decay"),
        (["init={head: reinit}"], "init.head", "has no effect: no weights are loaded"),
        (["init={from: a.pt, head_init_scale: 0.1}"], "init.head_init_scale", "has no effect on a head that is loaded"),
        (
            ["distributed.strategy=fsdp", "training.precision=fp16"],
            "distributed.strategy",
            "fsdp has no loss scaling, which fp16 needs",
        ),
        (
            ["distributed.strategy=fsdp", "training.compile=true"],
            "distributed.strategy",
            "torch.compile breaks the graph",
        ),
        (
            ["distributed.strategy=fsdp", "optimizer={name: adamp, lr: 0.1}"],
            "distributed.strategy",
            "adamp is not known to work on shares of weights, which fsdp gives it; use adamw, lamb, lion, sgd, or",
        ),
        (
            ["distributed.activation_checkpointing=true", "training.compile=true"],
            "distributed.activation_checkpointing",
            "has no effect with torch.compile, which itself decides what the backward pass recomputes",
        ),
        (["name=a/b"], "name", "'a/b' cannot name a folder; use letters, digits, _ and -"),
        (["name=..", "seed=1"], "name", "'..' cannot name a folder"),
        (["name=' a'"], "name", "' a' cannot name a folder"),
        (['name="a\\tb"'], "name", "'a\\tb' cannot name a folder"),
    ],
)
def test_a_contradiction_is_found_where_it_is_written(problem, whole, overrides, path, message):
    found = problem(whole, *overrides)
    assert ".".join(map(str, found.path)) == path
    assert message in f"{found.message}; {found.cure}"


@pytest.mark.parametrize(
    ("override", "path", "message"),
    [
        ("augmentations.0={name: color_jitter, brightness: 0, contrast: 0, saturation: 0}", "augmentations.0", "at 0"),
        ("augmentations.1={name: mixup_cutmix, mixup_alpha: 0, cutmix_alpha: 0}", "augmentations.1", "is mixed"),
        (
            "augmentations=[{name: mixup_cutmix, cutmix_alpha: 0, switch_probability: 0.4}]",
            "augmentations.0.switch_probability",
            "there is only Mixup; remove it, or set cutmix_alpha above 0",
        ),
        ("augmentations=[{name: rand_augment, policy: rand-m9-x1}]", "augmentations.0.policy", "x1"),
        ("augmentations=[{name: random_erasing, area: [0.5, 0.1]}]", "augmentations.0.area", "write [0.1, 0.5]"),
        ("model={name: convnext, depths: [1,1,1,1], dims: [8,8,8,8], kernel_size: 4}", "model.kernel_size", "3 or 5"),
    ],
)  # fmt: skip
def test_what_a_component_refuses_points_at_its_key(problem, whole, override, path, message):
    found = problem(whole, override)
    assert ".".join(map(str, found.path)) == path
    assert message in f"{found.message}; {found.cure}"


def test_several_contradictions_are_told_at_once_in_the_order_of_the_file(problems, whole):
    text = whole.replace("epochs: 5", "epochs: 5, steps: 7").replace("name: small", "name: a/b")
    found = problems(text.replace("  - {name: horizontal_flip}\n", "  - {name: mixup_cutmix}\n"))
    assert [".".join(map(str, p.path)) for p in found] == ["name", "augmentations.1", "training.steps"]


def test_what_a_default_would_contradict_is_no_error(load, whole):
    """Only what somebody wrote can be wrong: `checkpoints.keep.best` is 1 unless a recipe says so."""
    assert load(whole, "evaluation=null").checkpoints.keep.best == 1


def test_differences_are_dotted_keys_with_both_values():
    before = {"seed": 0, "model": {"name": "a", "x": 1}, "gone": [1]}
    after = {"seed": 0, "model": {"name": "a", "x": 2}, "new": None}
    assert differences(before, after) == [("model.x", 1, 2), ("gone", [1], None)]
    assert differences(before, before) == []


def test_a_list_without_items_is_as_good_as_none():
    assert differences({"init": {"from": "a"}}, {"init": {"from": "a", "ignore": []}}) == []
    assert differences({"init": {"ignore": ["x"]}}, {"init": {"ignore": []}}) == [("init.ignore", ["x"], [])]
