"""Names of classes that look alike: one class, or shown so that the difference can be seen."""

from __future__ import annotations

import functools
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convrun.components.data import npz as npz_set
from convrun.data.sets.image_folder import scan_tree
from convrun.display.screen import Screen
from convrun.distributed.meeting.agreement import data_hash
from convrun.errors import CheckpointError, DataError, ModelError
from convrun.plan import Machine, make_plan
from convrun.training.resuming.changes import check_same_data
from convrun.training.run import check_counts, run
from convrun.weights.classes import rows_of_head
from tests.data.parquet_files import create, encoded, pa, write

MakeTree = Callable[..., Path]
NFC, NFD = "caf\xe9", "cafe\u0301"


@pytest.mark.parametrize(("in_train", "in_val"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_a_folder_whose_accents_a_copy_changed_is_the_same_class(
    in_train: str, in_val: str, make_tree: MakeTree
) -> None:
    root = make_tree(f"train/{in_train}/1.png", "train/cafz/1.png", f"val/{in_val}/1.png", "val/cafz/1.png")
    train, val = scan_tree(str(root))
    assert train.class_names == val.class_names == ("cafz", NFC)  # the same labels, whatever the system
    assert (list(train.labels), train.notes, val.notes) == ([0, 1], (), ())
    assert train.paths.decode() == f"cafz/1.png{in_train}/1.png"


def test_two_folders_of_one_name_are_an_error_that_shows_the_difference(make_tree: MakeTree) -> None:
    root = make_tree(f"train/{NFC}/1.png", f"train/{NFD}/1.png", "train/a/1.png", f"val/{NFC}/1.png", "val/a/1.png")
    with pytest.raises(DataError, match=r"two folders of one name, 'cafe\\u0301' and 'caf\\xe9': .*Move the images of"):
        scan_tree(str(root))


@pytest.mark.parametrize(
    ("name", "shown"), [("b\xa0", r"'b\xa0'"), ("B", "'B'"), ("\uff42", r"'\uff42'"), ("b ", "'b '")]
)
def test_a_class_that_val_alone_has_and_looks_like_one_of_train_is_shown_with_what_to_rename(
    name: str, shown: str, make_tree: MakeTree
) -> None:
    root = make_tree("train/a/1.png", "train/b/1.png", "val/a/1.png", f"val/{name}/1.png")
    with pytest.raises(DataError) as caught:
        scan_tree(str(root))
    assert f"{shown} in val looks like 'b' in train: where they are one class, rename it in val" in str(caught.value)


def test_a_class_that_val_lacks_and_looks_like_one_it_has_is_noted(make_tree: MakeTree) -> None:
    root = make_tree("train/b/1.png", "train/b /1.png", "val/b/1.png")
    assert scan_tree(str(root))[1].notes[0].endswith("('b ' in train looks like 'b' in val)")


def test_folders_that_the_recipe_writes_otherwise_are_shown(make_tree: MakeTree) -> None:
    root = make_tree(f"set{NFD}/train/a/1.png", f"set{NFD}/{NFD}/a/1.png")
    with pytest.raises(DataError, match=r"no folder caf.: it has 'cafe\\u0301', which looks like 'caf\\xe9'; set"):
        scan_tree(f"{root}/set{NFD}", NFC)
    with pytest.raises(
        DataError, match=r"does not exist: 'setcafe\\u0301' is there, which looks like 'setcaf\\xe9'; set"
    ):
        scan_tree(f"{root}/set{NFC}")


def test_words_in_parquet_files_are_composed(tmp_path: Path) -> None:
    for name, words in (("train", [NFC, "b", NFD]), ("val", [NFD, "b"])):
        write(tmp_path / f"{name}.parquet", [encoded(n) for n in range(len(words))], pa.array(words), classes=None)
    keys = {"train": "train.parquet", "val": "val.parquet", "cache": False}
    train, val = (create(split, tmp_path, **keys) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("b", NFC)
    assert [train.read(n)[1] for n in range(3)] == [1, 0, 1]
    write(tmp_path / "val.parquet", [encoded(0)], pa.array(["b\u200b"]), classes=None)
    with pytest.raises(DataError, match=r"'b\\u200b' in val looks like 'b' in train"):
        create("train", tmp_path, **keys)


def test_names_in_parquet_files_are_composed(tmp_path: Path) -> None:
    keys = {"train": "train.parquet", "val": "val.parquet", "cache": False}
    write(tmp_path / "train.parquet", [encoded(n) for n in range(3)], classes=(NFC, "b", "c"))
    write(tmp_path / "val.parquet", [encoded(n) for n in range(3)], classes=(NFD, "b", "c"))
    assert create("val", tmp_path, **keys).class_names == (NFC, "b", "c")
    write(tmp_path / "val.parquet", [encoded(n) for n in range(3)], classes=(NFC, "b\xa0", "c"))
    with pytest.raises(DataError, match=r"label 1 is 'b' in one, 'b\\xa0' in the other"):
        create("val", tmp_path, **keys)


def test_names_in_npz_files_are_composed(tmp_path: Path) -> None:
    arrays = {f"{split}_{kind}": value for split in ("train", "val")
              for kind, value in (("images", np.zeros((2, 4, 4), np.uint8)), ("labels", np.array([0, 1])))}  # fmt: skip
    np.savez(tmp_path / "x.npz", class_names=np.array([NFD, "b"]), **arrays)
    assert npz_set("train", path=str(tmp_path / "x.npz")).class_names == (NFC, "b")


def test_a_head_whose_classes_look_like_the_datas_says_what_to_rename() -> None:
    assert rows_of_head("x.pt", [NFD, "b"], ["b", NFC]) == [1, 0]
    with pytest.raises(ModelError, match=r"'b' in the file looks like 'b\\xa0' in the data: rename the data's if they"):
        rows_of_head("x.pt", ["a", "b"], ["a", "b\xa0"])


class Named:
    def __init__(self, *names: str) -> None:
        self.class_names = names

    def __len__(self) -> int:
        return 67


def test_the_sets_of_a_plugin_are_compared_composed(tiny: Callable[..., Any]) -> None:
    plan = make_plan(tiny("data.val_images=67"), Machine())
    check_counts(plan, Named("a", "b", NFC), Named("a", "b", NFD))  # type: ignore[arg-type]
    assert data_hash(Named(NFC), Named(NFC)) == data_hash(Named(NFD), Named(NFD))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"label 2 is 'caf\\xe9' in train, but 'caf\\xe9 ' in val"):
        check_counts(plan, Named("a", "b", NFC), Named("a", "b", f"{NFC} "))  # type: ignore[arg-type]


def test_a_checkpoint_of_the_other_form_goes_on(tmp_path: Path) -> None:
    check_same_data(tmp_path, {"class_names": [NFD, "b"]}, {"class_names": [NFC, "b"]})
    with pytest.raises(CheckpointError, match=r"removed: 'b'; added: 'b\\xa0' \('b\\xa0' now looks like 'b' before\)"):
        check_same_data(tmp_path, {"class_names": ["a", "b"]}, {"class_names": ["a", "b\xa0"]})


def test_a_run_goes_on_after_its_folders_were_copied_by_a_system_of_the_other_form(
    make_tree: MakeTree, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    root = make_tree(*(f"set/{split}/{name}/1.png" for split in ("train", "val") for name in (NFC, "b")))
    data = f"data={{name: image_folder, root: {root}/set, workers: 0}}"
    words = (data, "training.batch_size=2", "training.micro_batch=2", "scheduler.warmup_steps=0")
    start = functools.partial(run, device="cpu", output=tmp_path / "run", screen=Screen(io.StringIO()))
    start(tiny(*words))
    for split in ("train", "val"):
        shutil.move(root / "set" / split / NFC, root / "set" / split / NFD)
    assert start(tiny(*words, "training.epochs=3"), allow_changes=["training.epochs"]).step == 3
