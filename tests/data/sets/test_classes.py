from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convrun.data.sets.classes import class_text, val_notes
from convrun.data.sets.image_folder import ImageFolder, scan_tree
from convrun.errors import DataError
from convrun.registry import registry

MakeTree = Callable[..., Path]


def create(name: str, split: str, **keys: Any) -> Any:
    component = registry.find("data", name)
    return component.create(split, **component.keys.check(keys))


def folder(root: Path, train: Sequence[int], val: Sequence[int]) -> dict[str, Any]:
    from PIL import Image

    for split, labels in (("train", train), ("val", val)):
        for number, label in enumerate(labels):
            path = root / f"{split}/c{label}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2)).save(path)
    return {"name": "image_folder", "root": str(root)}


def npz(root: Path, train: Sequence[int], val: Sequence[int], **arrays: Any) -> dict[str, Any]:
    for split, labels in (("train", train), ("val", val)):
        arrays |= {f"{split}_images": np.zeros((len(labels), 2, 2), np.uint8), f"{split}_labels": np.array(labels)}
    np.savez(root / "set.npz", **arrays)
    return {"name": "npz", "path": str(root / "set.npz")}


def named_npz(root: Path, train: Sequence[int], val: Sequence[int]) -> dict[str, Any]:
    return npz(root, train, val, class_names=[f"c{label}" for label in range(5)])


def parquet(root: Path, train: Sequence[int], val: Sequence[int], classes: Any = None) -> dict[str, Any]:
    from tests.data.parquet_files import encoded, write

    for split, labels in (("train", train), ("validation", val)):
        write(root / f"data/{split}-0.parquet", [encoded(0)] * len(labels), labels, classes=classes)
    return {"name": "parquet", "root": str(root)}


def named_parquet(root: Path, train: Sequence[int], val: Sequence[int]) -> dict[str, Any]:
    return parquet(root, train, val, [f"c{label}" for label in range(5)])


SETS = [folder, npz, named_npz, parquet, named_parquet]


@pytest.mark.parametrize("make", SETS)
def test_val_may_lack_classes_and_a_note_names_them(make: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    keys = make(tmp_path, [0, 1, 2, 3, 4], [4, 0, 4])
    train, val = create(split="train", **keys), create(split="val", **keys)
    prefix = "c" if "c0" in train.class_names else ""
    note = f"val has no image of 3 classes ({prefix}1, {prefix}2, {prefix}3), which train has: "
    assert [text.startswith(note) for text in val.notes] == [True]
    assert list(train.notes) == []
    assert train.class_names == val.class_names
    assert [val.class_names[val.read(index)[1]] for index in range(3)] in (
        [f"{prefix}{label}" for label in (4, 0, 4)],
        ["c0", "c4", "c4"],  # folders come in their own order
    )


@pytest.mark.parametrize("make", SETS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_that_only_val_has_is_an_error(make: Callable[..., dict[str, Any]], split: str, tmp_path: Path) -> None:
    keys = make(tmp_path, [0, 1, 3], [1, 0, 2, 4])
    with pytest.raises(DataError, match=r"images of 2 classes \(c?2, c?4\) are in val alone, so no training image"):
        create(split=split, **keys)


NUMBERED = [npz, parquet]
NAMED = [named_npz, named_parquet]


@pytest.mark.parametrize("make", SETS)
def test_one_class_is_an_error(make: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all training images are of class c?0, so there is nothing to learn; "):
        create(split="train", **make(tmp_path, [0, 0, 0], [0, 0]))


@pytest.mark.parametrize("make", NUMBERED)
@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_from_1_are_an_error_whose_cure_works(
    make: Callable[..., dict[str, Any]], split: str, tmp_path: Path
) -> None:
    keys = make(tmp_path, [1, 2, 3], [1, 2])
    message = (
        "training images have the labels 1 to 3, none has 0. Do the labels count from 1? Subtract 1 from those of all "
        "splits; if such a class is meant to be there, without images, set data.num_classes=4"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        create(split=split, **keys)
    with pytest.raises(DataError, match=re.escape(message)):
        create(split=split, num_classes=3, **keys)
    train, val = (create(split=split, num_classes=4, **keys) for split in ("train", "val"))
    assert train.notes == ("train has no image of class 0; do the labels count from 1?",)
    assert val.notes[0].startswith("val has no image of class 3, which train has")


@pytest.mark.parametrize("make", NUMBERED)
def test_gaps_in_numbers_are_an_error_that_names_them(make: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    keys = make(tmp_path, [0, 2, 5, 9], [0, 2])
    message = (
        "no training image has the labels 1, 3, 4, 6, 7 and 1 more, though they go up to 9. Number the classes 0, 1, 2 "
        "and so on in all splits; if such a class is meant to be there, without images, set data.num_classes=10"
    )
    with pytest.raises(DataError, match=f"{re.escape(message)}$"):
        create(split="train", **keys)
    assert create(split="train", num_classes=10, **keys).notes == (
        "train has no image of 6 classes (1, 3, 4, 6, 7 and 1 more)",
    )
    assert create(split="train", num_classes=11, **keys).notes == (
        "train has no image of 7 classes (1, 3, 4, 6, 7 and 2 more)",
    ), "more classes than the data have"


@pytest.mark.parametrize("make", NAMED)
def test_gaps_in_named_classes_are_a_note(make: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    train = create(split="train", **make(tmp_path, [1, 4], [1, 4]))
    assert train.notes == ("train has no image of 3 classes (c0, c2, c3); do the labels count from 1?",)


@pytest.mark.parametrize("make", NAMED)
def test_labels_from_1_of_named_classes_are_an_error(make: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"do they count from 1|do the labels count from 1"):
        create(split="train", **make(tmp_path, [1, 2, 3, 4, 5], [1, 2]))


@pytest.mark.parametrize("make", NUMBERED)
def test_val_that_counts_from_1_beside_train_from_0(make: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"class 3 are in val alone, .*; do the labels of val count from 1, and those"):
        create(split="train", **make(tmp_path, [0, 1, 2], [1, 2, 3]))


@pytest.mark.parametrize("make", NUMBERED)
@pytest.mark.parametrize(("dtype", "labels"), [(np.float32, [0, 1, 2]), (bool, [False, True, True])])
def test_whole_numbers_of_another_type_are_labels(
    make: Callable[..., dict[str, Any]], dtype: Any, labels: list[int], tmp_path: Path
) -> None:
    typed = np.array(labels, dtype)
    train = create(split="train", **make(tmp_path, typed, typed))
    assert [train.read(index)[1] for index in range(3)] == [int(label) for label in labels]


@pytest.mark.parametrize("make", NUMBERED)
@pytest.mark.parametrize(("labels", "shown"), [([0.0, 1.5], "1.5"), ([0.0, float("nan")], "nan")])
def test_fractions_are_no_labels(
    make: Callable[..., dict[str, Any]], labels: list[float], shown: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"{shown}.*no class number; save whole numbers from 0"):
        create(split="train", **make(tmp_path, np.array(labels), np.array([0.0])))


@pytest.mark.parametrize("make", [npz, parquet])
def test_a_class_for_each_image_is_told(make: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    train = create(split="train", **make(tmp_path, range(30), range(30)))
    assert train.notes == ("each of the 30 training images has a class of its own: are these really labels?",)


def test_a_root_one_level_too_high(make_tree: MakeTree) -> None:
    root = make_tree(*(f"{s}/images/my set/{name}/1.png" for s in ("train", "val") for name in ("a", "b")))
    keys = {"name": "image_folder", "root": str(root)}
    with pytest.raises(DataError) as caught:
        create(split="train", **keys)
    assert str(caught.value) == (
        f"{root}/train: all training images are of class images, so there is nothing to learn; is the root one level "
        f"too high? {root}/train/images/my set holds the folders a, b. If those are the classes, set "
        "data.train_folder='train/images/my set' data.val_folder='val/images/my set'"
    )
    cured = create(split="val", train_folder="train/images/my set", val_folder="val/images/my set", **keys)
    assert (len(cured), cured.class_names) == (2, ("a", "b"))


def test_one_class_folder_without_folders_below(make_tree: MakeTree) -> None:
    root = make_tree("train/a/1.png", "val/a/1.png")
    with pytest.raises(DataError, match=r"nothing to learn; give the images of each class a folder of their own$"):
        create(split="train", name="image_folder", root=str(root))


@pytest.mark.parametrize(
    ("folder", "names", "cure"),
    [
        (".", ("train", "val"), "data.train_folder=train data.val_folder=val"),
        ("all", ("test", "Training"), "data.train_folder=all/Training data.val_folder=null evaluation=null"),
    ],
)
def test_folders_of_splits_are_no_classes(make_tree: MakeTree, folder: str, names: tuple[str, ...], cure: str) -> None:
    root = make_tree(*(f"{folder}/{name}/{c}/1.png" for name in names for c in ("a", "b")))
    with pytest.raises(DataError, match=rf"taken for classes, are named .*, as splits are; set {re.escape(cure)}$"):
        create(split="train", name="image_folder", root=str(root), train_folder=folder, val_folder=None)


def test_made_up_images_tell_as_well() -> None:
    keys = {"name": "synthetic", "train_images": 9, "val_images": 2, "num_classes": 3}
    assert create(split="train", **keys).notes == ()
    assert create(split="val", **keys).notes[0].startswith("val has no image of class class 2, which train has")


def test_equal_splits_have_no_note(tmp_path: Path) -> None:
    assert create(split="val", **named_npz(tmp_path, [0, 1, 2, 3, 4], [4, 3, 2, 1, 0])).notes == ()
    assert val_notes("x", ["a", "b"], [], "cure") == (), "a split without images has nothing to say"


def test_a_class_folder_of_val_may_be_empty(make_tree: MakeTree) -> None:
    root = make_tree("train/a/1.png", "train/b/1.png", "val/b/1.png")
    (root / "val/a").mkdir()
    (root / "val/c").mkdir()
    val = ImageFolder(scan_tree(str(root))[1])
    assert (val.class_names, val.read(0)[1]) == (("a", "b"), 1)
    assert val.notes == ("val has no image of class a, which train has: no evaluation says how well it is recognised",)


@pytest.mark.parametrize("cure", ["move", "delete", "without"])
def test_every_cure_for_folders_works(make_tree: MakeTree, cure: str) -> None:
    root = make_tree("train/a/1.png", "val/a/1.png", "val/b/1.png", "val/b/2.png")
    with pytest.raises(DataError) as caught:
        scan_tree(str(root))
    assert str(caught.value) == (
        f"{root}: images of class b are in val alone, so no training image shows it; move some to {root}/train/CLASS "
        f"or delete {root}/val/CLASS; or data.val_folder=null evaluation=null"
    )
    if cure == "move":
        (root / "train/b").mkdir()
        (root / "val/b/1.png").rename(root / "train/b/1.png")
    if cure == "delete":
        for image in (root / "val/b").iterdir():
            image.unlink()
        (root / "val/b").rmdir()
    train, _ = scan_tree(str(root), val_folder=None if cure == "without" else "val")
    assert train.class_names == (("a", "b") if cure == "move" else ("a",))


def test_names_in_messages() -> None:
    assert class_text(["a"]) == "class a"
    assert class_text(["a", "b "]) == "2 classes (a, 'b ')"
    assert class_text(["a\nb"]) == r"class a\nb"
    assert class_text([str(number) for number in range(1200)]) == "1,200 classes (0, 1, 2, 3, 4 and 1195 more)"
