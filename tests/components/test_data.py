from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convrun.components.data import check_declared
from convrun.contracts.data import DataFacts
from convrun.errors import DataError, KeyProblem
from convrun.registry import registry
from tests.data.reading import load

NAMES = ["cifar10", "cifar100", "digits", "image_folder", "npz", "parquet", "synthetic"]


@pytest.fixture
def tree(tmp_path: Path) -> str:
    """Two classes, 3 + 2 training images, 1 + 1 for validation."""
    for name in ("train/a/1.png", "train/a/2.png", "train/a/3.png", "train/b/1.png", "train/b/2.png",
                 "val/a/1.png", "val/b/1.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    return str(tmp_path)


@pytest.fixture
def archive(tmp_path: Path) -> str:
    images = np.zeros((4, 2, 2), np.uint8)
    labels = np.array([0, 1, 0, 1])
    np.savez(
        tmp_path / "set.npz", train_images=images, train_labels=labels, val_images=images[:2], val_labels=labels[:2]
    )
    return str(tmp_path / "set.npz")


def facts(name: str, how: str = "facts", **keys: Any) -> DataFacts:
    """As the plan asks for them, or `measure`s them: with all keys of the component itself."""
    component = registry.find("data", name)
    own = {key.name: keys.get(key.name, key.default) for key in component.own_keys}
    found = component.meta[how](**own)
    assert isinstance(found, DataFacts)
    return found


def create(name: str, split: str, **keys: Any) -> Any:
    component = registry.find("data", name)
    return component.create(split, **component.keys.check(keys))


def test_nothing_heavy_is_imported_for_facts_and_descriptions(tree: str) -> None:
    script = f"""
import sys
from convrun.registry import registry
for component in registry.all("data"):
    component.summary, component.keys.schema
registry.find("data", "synthetic").meta["facts"](train_images=5, val_images=5, num_classes=5, image_size=5)
registry.find("data", "digits").meta["facts"]()
folders = registry.find("data", "image_folder")
folders.meta["facts"](**{{key.name: {{"root": {tree!r}}}.get(key.name, key.default) for key in folders.own_keys}})
registry.find("data", "npz").meta["facts"](path="x", val="val", num_classes=2, train_images=1, val_images=1)
print([name for name in ("torch", "torchvision", "numpy", "PIL") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", NAMES)
def test_every_key_has_a_meaning(name: str) -> None:
    component = registry.find("data", name)
    assert len(component.summary) > 20
    assert [key.name for key in component.own_keys if not key.meaning] == []


def test_these_data_sets_exist() -> None:
    assert [c.name for c in registry.all("data") if c.provider == "convrun"] == NAMES


def test_declared_numbers_are_believed_without_a_look_at_the_disk() -> None:
    numbers = {"num_classes": 3, "train_images": 9, "val_images": 6}
    assert facts("image_folder", root="/nowhere", **numbers) == DataFacts(3, 9, 6)
    assert facts("npz", path="/nowhere.npz", **numbers) == DataFacts(3, 9, 6)


def test_missing_numbers_are_found(tree: str, archive: str) -> None:
    assert facts("image_folder", root=tree, num_classes=2) == DataFacts(2, 5, 2)
    assert facts("npz", path=archive, train_images=4) == DataFacts(2, 4, 2)


def test_missing_files_when_numbers_are_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; set data.root=FOLDER"):
        facts("image_folder", root=str(tmp_path / "gone"), num_classes=2, train_images=5)
    with pytest.raises(DataError, match=r"does not exist; set data.path=FILE"):
        facts("npz", path=str(tmp_path / "gone.npz"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_all_disagreements_come_at_once_with_the_cure(split: str, tree: str, archive: str) -> None:
    message = (
        f"{tree} is not what the recipe declares: num_classes is 3, found 2; train_images is 9, found 5; "
        "check the data, or set data.num_classes=2 data.train_images=5 data.val_images=2"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        create("image_folder", split, root=tree, num_classes=3, train_images=9, val_images=2)
    with pytest.raises(DataError, match=r"val_images is 9, found 2; .* data.train_images=4 data.val_images=2$"):
        create("npz", split, path=archive, val_images=9)


def test_measuring_looks_at_the_disk_whatever_is_declared(tree: str, archive: str) -> None:
    numbers = {"num_classes": 2, "train_images": 5, "val_images": 2}
    assert facts("image_folder", "measure", root=tree, **numbers) == DataFacts(**numbers)
    assert facts("npz", "measure", path=archive, **{**numbers, "train_images": 4}) == DataFacts(2, 4, 2)
    for name, keys in (("image_folder", {"root": tree}), ("npz", {"path": archive})):
        with pytest.raises(DataError, match="train_images is 6, found"):
            facts(name, "measure", **keys, **{**numbers, "train_images": 6})


def test_check_declared_accepts_what_is_right_or_not_declared() -> None:
    found = DataFacts(2, 5, 2)
    check_declared("x", found)
    check_declared("x", found, num_classes=2, train_images=None)
    check_declared("x", found, **dataclasses.asdict(found))
    with pytest.raises(DataError, match="val_images is 0, found 2"):
        check_declared("x", found, val_images=0)


@pytest.mark.parametrize("name", ["image_folder", "npz", "cifar10", "cifar100"])
def test_an_empty_path_is_a_problem_of_its_key(name: str) -> None:
    key = "path" if name == "npz" else "root"
    with pytest.raises(KeyProblem, match=f"is empty; set data.{key}=") as caught:
        facts(name, **{key: " "})
    assert caught.value.key == key


def test_more_classes_than_images_is_a_problem_of_its_key() -> None:
    with pytest.raises(KeyProblem, match="more than train_images") as caught:
        facts("synthetic", num_classes=11, train_images=10)
    assert caught.value.key == "num_classes"


def test_builders_open_what_the_facts_say(tree: str, archive: str) -> None:
    for name, keys in (
        ("image_folder", {"root": tree}),
        ("npz", {"path": archive}),
        ("digits", {}),
        ("synthetic", {"train_images": 7, "val_images": 3, "num_classes": 2, "image_size": 4}),
    ):
        train, val = create(name, "train", **keys), create(name, "val", **keys)
        assert DataFacts(len(train.class_names), len(train), len(val)) == facts(name, **keys), name
        image, label = load(val, 1, "val")
        assert image.mode == "RGB"
        assert 0 <= label < len(val.class_names)
        assert "val" in val.place(1)


@pytest.mark.parametrize("name", ["image_folder", "parquet"])
def test_a_grey_range_that_is_none(name: str) -> None:
    numbers = {"num_classes": 2, "train_images": 3, "val_images": 3, "root": "x"}
    assert facts(name, **numbers, grey_range=(0, 4095)) == DataFacts(2, 3, 3)
    with pytest.raises(KeyProblem, match=r"\[255, 0\] is no range; write \[BLACK, WHITE\], the lower first"):
        facts(name, **numbers, grey_range=(255, 0))


def test_cifars_facts_are_the_published_ones() -> None:
    assert facts("cifar10", root="x") == DataFacts(10, 50_000, 10_000)
    assert facts("cifar100", root="x") == DataFacts(100, 50_000, 10_000)


def test_cifar_without_files(tmp_path: Path) -> None:
    for name in ("cifar10", "cifar100"):
        with pytest.raises(DataError, match=f"^{name}: .* is missing; set data.root=FOLDER"):
            create(name, "train", root=str(tmp_path))


def test_digits_places_name_the_file() -> None:
    assert create("digits", "train").place(17) == "digits.npz train image 17"


def test_other_folder_names(tree: str) -> None:
    Path(tree, "val").rename(Path(tree, "dev"))
    assert len(create("image_folder", "val", root=tree, val_folder="dev")) == 2


@pytest.mark.parametrize(("name", "key"), [("image_folder", "val_folder"), ("npz", "val"), ("parquet", "val")])
def test_data_may_have_no_validation_images(name: str, key: str) -> None:
    keys = {"path" if name == "npz" else "root": "/nowhere", "num_classes": 3, "train_images": 9, key: None}
    assert facts(name, **keys) == DataFacts(3, 9, 0)
    with pytest.raises(KeyProblem, match=f"there are none where {key} is null; remove it"):
        facts(name, **keys, val_images=2)


def test_a_recipe_without_validation_images(tree: str, archive: str) -> None:
    for name, keys in (
        ("image_folder", {"root": tree, "val_folder": None}),
        ("npz", {"path": archive, "val": None}),
        ("synthetic", {"train_images": 7, "val_images": 0, "num_classes": 2, "image_size": 4}),
    ):
        train, val = create(name, "train", **keys), create(name, "val", **keys)
        assert (len(val), val.class_names, list(val.notes)) == (0, train.class_names, []), name
        assert facts(name, **keys).val_images == 0
