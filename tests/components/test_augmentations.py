import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from convrun.contracts.augmentation import ImageFormat
from convrun.errors import KeyProblem
from convrun.keys.key_sets import InvalidKeys
from convrun.randomness import Draws
from convrun.registry import registry

IMAGES = ImageFormat(16, 10, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ALL = [c for c in registry.all("augmentation") if c.provider == "convrun"]
each_component = pytest.mark.parametrize("component", ALL, ids=[c.name for c in ALL])


def find(name):
    return registry.find("augmentation", name)


def outcome(component, seed, **keys):
    """The bytes of what the augmentation, as configured, makes of one image or micro-batch."""
    augment = component.create(IMAGES, **component.keys.check(keys))
    if component.meta["place"] == "image":
        pixels = np.random.default_rng(0).integers(0, 256, (21, 27, 3), dtype=np.uint8)
        return augment(Image.fromarray(pixels), random.Random(seed)).tobytes()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    draws = Draws(random.Random(seed), torch.Generator().manual_seed(seed))
    images, targets = augment(images, torch.arange(4), draws)
    return images.numpy().tobytes() + targets.numpy().tobytes()


def test_the_augmentations_of_the_recipes_are_there():
    assert {c.name for c in ALL} == {
        "random_resized_crop", "random_crop", "horizontal_flip", "rand_augment", "trivial_augment", "color_jitter",
        "random_erasing", "mixup_cutmix",
    }  # fmt: skip


def test_importing_the_metadata_imports_nothing_heavy():
    code = (
        "import sys; from convrun.registry import registry; registry.all('augmentation')[0].keys;"
        "print({'torch', 'PIL', 'numpy', 'torchvision', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@each_component
def test_every_key_says_what_it_means(component):
    assert len(component.summary) > 20
    assert all(len(key.meaning) > 10 for key in component.own_keys)


@each_component
def test_defaults_are_valid(component):
    values = component.keys.check({})
    component.meta.get("check", lambda **_: None)(**values)
    assert component.meta["place"] in ("image", "batch")


@each_component
def test_the_generators_that_are_passed_decide_all(component):
    results = [outcome(component, seed) for seed in range(12)]
    assert results == [outcome(component, seed) for seed in range(12)]
    assert len(set(results)) > 1


@each_component
def test_global_generators_are_left_alone(component):
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()
    for seed in range(5):
        outcome(component, seed)
    assert before == (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes())


@each_component
def test_what_is_built_can_be_sent_to_a_worker(component):
    augment = component.create(IMAGES, **component.keys.check({}))
    assert pickle.loads(pickle.dumps(augment)) == augment


@pytest.mark.parametrize("name", ["random_resized_crop", "random_crop"])
def test_crops_yield_the_input_size(name):
    assert len(outcome(find(name), 0)) == 16 * 16 * 3
    assert [c.name for c in ALL if c.meta.get("crops")] == ["random_crop", "random_resized_crop"]


def test_conflicts_are_mutual_and_name_augmentations():
    conflicts = {(c.name, other): why for c in ALL for other, why in c.meta.get("conflicts", {}).items()}
    assert all(conflicts[other, name] == why for (name, other), why in conflicts.items())
    assert ("rand_augment", "color_jitter") in conflicts
    assert ("random_crop", "random_resized_crop") in conflicts


def test_mixing_comes_after_erasing():
    assert find("mixup_cutmix").meta["after"] == ("random_erasing",)


def test_rand_augment_fills_with_the_mean_colour():
    augment = find("rand_augment").create(IMAGES)
    assert augment.fill == (124, 116, 104)


BAD = [
    ("random_resized_crop", {"scale": (1.0, 0.08)}, "scale", "first value, 1, is above.*write \\[0.08, 1\\]"),
    ("random_resized_crop", {"ratio": (2.0, 1.0)}, "ratio", "is above"),
    ("rand_augment", {"policy": "rand-m9-mstdx"}, "policy", "not understood"),
    ("color_jitter", {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}, None, "no effect"),
    ("random_erasing", {"area": (0.5, 0.1)}, "area", "is above"),
    ("random_erasing", {"aspect": (3.0, 0.1)}, "aspect", "is above"),
    ("mixup_cutmix", {"mixup_alpha": 0.0, "cutmix_alpha": 0.0}, None, "nothing is mixed"),
    ("mixup_cutmix", {"mixup_alpha": 0.0, "switch_probability": 0.3}, "switch_probability", "mixup_alpha is 0.*CutMix"),
    ("mixup_cutmix", {"cutmix_alpha": 0.0, "switch_probability": 0.3}, "switch_probability", "cutmix_alpha is 0"),
]


@pytest.mark.parametrize(("name", "keys", "key", "message"), BAD)
def test_values_that_do_not_go_together_are_refused_with_a_cure(name, keys, key, message):
    component = find(name)
    values = component.keys.check(keys)
    for refuse in (component.meta["check"], lambda **v: component.create(IMAGES, **v)):
        with pytest.raises(KeyProblem, match=message) as caught:
            refuse(**values)
        assert caught.value.key == key
        assert caught.value.cure


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("horizontal_flip", "probability", 0.0),
        ("random_erasing", "probability", 0.0),
        ("random_erasing", "count", 0),
        ("random_erasing", "area", (0.02, 1.0)),
        ("mixup_cutmix", "probability", 0.0),
        ("mixup_cutmix", "probability", 1.1),
        ("mixup_cutmix", "switch_probability", 0.0),
        ("mixup_cutmix", "mixup_alpha", -0.1),
        ("color_jitter", "hue", 0.6),
        ("random_crop", "padding", -1),
        ("random_resized_crop", "scale", (0.0, 1.0)),
        ("random_resized_crop", "interpolation", "area"),
        ("rand_augment", "interpolation", "lanczos"),
    ],
)
def test_values_without_effect_or_meaning_are_refused(name, key, value):
    with pytest.raises(InvalidKeys) as caught:
        find(name).keys.check({key: value})
    assert [invalid.path[0] for invalid in caught.value.found] == [key]


def test_integers_and_lists_of_a_recipe_are_accepted():
    values = find("random_resized_crop").keys.check({"scale": [0.5, 1]})
    assert values["scale"] == (0.5, 1.0)


def test_one_alpha_alone_is_accepted():
    assert outcome(find("mixup_cutmix"), 0, cutmix_alpha=0) != outcome(find("mixup_cutmix"), 0, mixup_alpha=0)
