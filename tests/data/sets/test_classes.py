from __future__ import annotations

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
