"""Every recipe that ships loads, plans, survives `show`, and is what editors and readers are told it is."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from convrun.errors import UsageError
from convrun.plan import Machine, make_plan
from convrun.recipe import find_recipe, load_recipe, shipped, shipped_recipes
from convrun.recipe.shipped import FOLDER, copy_recipe
from convrun.recipe.writing import recipe_yaml

NAMES = sorted(shipped_recipes())
MODELINE = "# yaml-language-server: $schema=recipe.schema.json\n"


@pytest.fixture(scope="module")
def recipes():
    return {name: load_recipe(name, plugins=False) for name in NAMES}


def test_the_glob_finds_the_recipes():
    assert len(NAMES) >= 30
    assert {"digits_demo", "convnext_tiny_in1k"} <= set(NAMES)
    assert not any(name.startswith("_") for name in NAMES)


def test_what_systems_leave_beside_the_recipes_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    for name in ("mine.yaml", "._mine.yaml", ".hidden.yaml"):
        (tmp_path / name).write_text("{}")
    assert list(shipped_recipes()) == ["mine"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_loads_and_plans(recipes, name):
    recipe = recipes[name]
    plan = make_plan(recipe, Machine())
    assert recipe.name == name, "the name in the file is the file's name"
    assert recipe.summary
    assert plan.steps_per_epoch * plan.training.batch_size + plan.images_left_out == plan.train_images
    assert plan.processes * plan.micro_batch * plan.accumulation == plan.training.batch_size
    assert plan.parameters() > 0


@pytest.mark.parametrize("name", NAMES)
def test_what_show_prints_is_the_same_recipe(recipes, name, tmp_path):
    recipe = recipes[name]
    path = tmp_path / "shown.yaml"
    path.write_text(recipe_yaml(recipe))
    again = load_recipe(path, plugins=False)
    assert again.resolved() == recipe.resolved()
    assert again.hash == recipe.hash
    assert dataclasses.asdict(again.training) == dataclasses.asdict(recipe.training)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_a_shipped_file_begins_with_the_modeline(path):
    assert path.read_text().startswith(MODELINE)
    assert (FOLDER / "recipe.schema.json").is_file()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_yaml_1_1_tools_can_read_a_shipped_file_too(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_hashes_tell_the_recipes_apart(recipes):
    assert len({recipe.hash for recipe in recipes.values()}) == len(NAMES)


def test_the_hash_ignores_what_changes_no_number():
    first = load_recipe("digits_demo", plugins=False)
    same = ["name=other", "summary=x", "notes=y", "expect={top1: 1}", "logging.every_steps=3", "logging.to=[jsonl]"]
    assert load_recipe("digits_demo", same, plugins=False).hash == first.hash


@pytest.mark.parametrize(
    "override", ["seed=1", "model.drop_path_rate=0.06", "optimizer.lr=3e-3", "training.epochs=31", "ema.decay=0.98",
                 "data.std=[0.5, 0.5, 0.6]", "augmentations.0.interpolation=bicubic", "evaluation.crop_ratio=0.9"],
)  # fmt: skip
def test_the_hash_changes_with_what_changes_numbers(override):
    first = load_recipe("digits_demo", plugins=False)
    assert load_recipe("digits_demo", [override], plugins=False).hash != first.hash


# Finding and copying


def test_a_name_a_path_and_a_run_folder_stand_for_a_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text("a: 1")
    assert find_recipe("digits_demo").name == "digits_demo.yaml"
    assert find_recipe(str(tmp_path / "recipe.yaml")) == tmp_path / "recipe.yaml"
    assert find_recipe(str(tmp_path)) == tmp_path / "recipe.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digit_demo", "no file digit_demo and no shipped recipe of that name; did you mean digits_demo?"),
        ("recipes/convnext_tinny_in1k.yaml", "did you mean convnext_tiny_in1k?"),
        ("qqq", "convrun list recipes shows those that ship"),
        ("_in1k", "no shipped recipe of that name"),
        ("/", "/ is a folder without a recipe.yaml"),
    ],
)
def test_a_recipe_that_is_not_there_names_the_nearest(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        find_recipe(text)


def test_a_copy_works_from_its_new_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copied = copy_recipe("convnext_tiny_in1k", None)
    assert copied.name == "convnext_tiny_in1k.yaml"
    assert load_recipe(copied, plugins=False).hash == load_recipe("convnext_tiny_in1k", plugins=False).hash


def test_a_copys_modeline_names_the_schema_that_ships(tmp_path):
    first = copy_recipe("digits_demo", tmp_path).read_text().splitlines()[0]
    schema = Path(first.partition("$schema=")[2])
    assert schema.is_absolute() and schema.samefile(FOLDER / "recipe.schema.json")


def test_a_copy_into_a_folder_keeps_the_name(tmp_path):
    assert copy_recipe("digits_demo", tmp_path) == tmp_path / "digits_demo.yaml"


def test_a_copy_overwrites_nothing(tmp_path):
    (tmp_path / "mine.yaml").write_text("precious")
    with pytest.raises(UsageError, match=r"mine\.yaml exists already; name another destination"):
        copy_recipe("digits_demo", tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == "precious"
