"""What systems and programs leave in people's folders is neither class nor image, and is told."""

from __future__ import annotations

import dataclasses
import functools
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convrun.components.data import image_folder_facts
from convrun.contracts.data import notes_of
from convrun.data.sets import image_folder
from convrun.data.sets.image_folder import ImageFolder, scan_tree
from convrun.display.screen import Screen
from convrun.errors import CheckpointError, DataError
from convrun.plan import Machine, make_plan
from convrun.training.run import run
from convrun.validation.opened_data import opened_data
from tests.data.parquet_files import create, encoded, write

MakeTree = Callable[..., Path]
PLAIN = ("train/a/1.png", "train/a/deep/2.png", "train/b/3.png", "val/a/1.png", "val/b/2.png")


@pytest.fixture
def plain(make_tree: MakeTree) -> Path:
    return make_tree(*PLAIN)


@pytest.mark.parametrize(
    ("place", "told", "split"),
    [
        ("train/.ipynb_checkpoints/1-checkpoint.png", "train: 1 name .* ignored: 1 .ipynb_checkpoints", 0),
        ("train/a/.ipynb_checkpoints/1-checkpoint.png", r"1 .ipynb_checkpoints \(first: a/.ipynb_checkpoints\)", 0),
        ("train/a/deep/@eaDir/2.png/thumb.jpg", r"1 @eaDir \(first: a/deep/@eaDir\)", 0),
        ("val/__MACOSX/a/._1.png", "val: 1 name .* 1 __MACOSX", 1),
        ("train/a/._1.png", r"1 ._\* \(first: a/._1.png\)", 0),
        ("train/._a", r"1 ._\* \(first: ._a\)", 0),
        ("train/b/.3.png.Xy7z", r"1 \.\* \(first: b/.3.png.Xy7z\)", 0),
        ("train/b/Thumbs.db", r"1 Thumbs.db \(first: b/Thumbs.db\)", 0),
        ("train/b/4.png.crdownload", r"1 \*.crdownload \(first: b/4.png.crdownload\)", 0),
        ("train/b/Icon\r", r"1 Icon\\r \(first: b/Icon\\r\)", 0),
        ("train/$RECYCLE.BIN/S-1-5/1.png", r"1 \$RECYCLE.BIN", 0),
        (".Trash-1000/files/1.png", r".*: 1 name .* ignored: 1 .Trash-1000", 0),
        ("lost+found/1.png", r".*: 1 name .* ignored: 1 lost\+found", 0),
    ],
)
def test_it_is_ignored_wherever_it_lies_and_told(
    place: str, told: str, split: int, plain: Path, make_tree: MakeTree
) -> None:
    before = scan_tree(str(plain))
    assert notes_of(*map(ImageFolder, before)) == []
    make_tree(place)
    image_folder._scan.cache_clear()  # looks at the class folders' times, and no deeper
    after = scan_tree(str(plain))
    assert [dataclasses.replace(scan, notes=()) for scan in after] == list(before)
    notes = [list(ImageFolder(scan).notes) for scan in after]
    assert (len(notes[split]), notes[1 - split]) == (1, [])
    assert re.search(told, notes[split][0])


def test_kinds_are_counted_with_the_first_example(plain: Path, make_tree: MakeTree) -> None:
    make_tree("train/a/._1.png", "train/b/._3.png", "train/.DS_Store", "train/b/.DS_Store", "train/.git/config")
    (line,) = scan_tree(str(plain))[0].notes
    assert line == (
        "train: 5 names that systems and programs leave behind are ignored: 2 .DS_Store, 2 ._* (first: a/._1.png), "
        "1 .git"
    )


@pytest.mark.parametrize("name", ["tmp", "core", "_a", "0", "recycler", "x.part", "lost"])
def test_a_class_of_an_unusual_name_stays_one(name: str, plain: Path, make_tree: MakeTree) -> None:
    make_tree(f"train/{name}/1.png", f"val/{name}/1.png")
    train, val = scan_tree(str(plain))
    assert name in train.class_names
    assert (train.notes, val.notes) == ((), ())


@pytest.mark.parametrize("names", [(".hidden", ".dev"), (".cache/sets/train", ".cache/sets/val")])
def test_a_hidden_folder_that_the_recipe_names_is_used(names: tuple[str, str], make_tree: MakeTree) -> None:
    root = make_tree(f".root/{names[0]}/a/1.png", f".root/{names[1]}/a/1.png")
    train, val = scan_tree(str(root / ".root"), *names)
    assert (len(train), len(val), train.notes, val.notes) == (1, 1, (), ())


def test_a_hidden_link_is_ignored_and_a_link_to_a_hidden_place_is_followed(plain: Path, make_tree: MakeTree) -> None:
    make_tree("train/.store/7.png")
    (plain / "train/b/more").symlink_to("../.store")
    (plain / "train/b/.more").symlink_to("../a")
    train, _ = scan_tree(str(plain))
    assert len(train) == 4
    assert "2 name" in train.notes[0]


def test_a_class_with_nothing_else_has_no_image_and_the_error_says_what_it_holds(
    plain: Path, make_tree: MakeTree
) -> None:
    make_tree("train/c/.DS_Store", "train/c/._1.png", "val/c/1.png")
    with pytest.raises(
        DataError, match=r"no image in class folder c \(left out: 1 .DS_Store \(first: c/.DS_Store\), 1 ._\*"
    ):
        scan_tree(str(plain))


def test_a_split_with_nothing_else_has_no_class(make_tree: MakeTree) -> None:
    root = make_tree("train/.ipynb_checkpoints/1.png", "val/a/1.png")
    with pytest.raises(DataError, match=r"train has no class folder \(ignored: 1 .ipynb_checkpoints\); images belong"):
        scan_tree(str(root))


def test_numbers_that_counted_it_are_told_with_what_is_ignored_now(plain: Path, make_tree: MakeTree) -> None:
    make_tree("train/.ipynb_checkpoints/1.png")
    keys: dict[str, Any] = {
        "root": str(plain),
        "train_folder": "train",
        "val_folder": "val",
        "train_images": None,
        "val_images": None,
    }
    with pytest.raises(DataError, match=r"num_classes is 3, found 2; .*ignored: 1 .ipynb_checkpoints"):
        image_folder_facts(**keys, num_classes=3)


def test_parquet_patterns_pass_over_it_and_tell(tmp_path: Path) -> None:
    for name in ("train-0.parquet", "._train-0.parquet", "__MACOSX/train-1.parquet", ".hidden/train-2.parquet",
                 "train-3.parquet.part", "val.parquet"):  # fmt: skip
        write(tmp_path / name, [encoded(number) for number in range(3)])
    keys = {"train": "**/*train-*", "val": "val.parquet", "cache": False}
    train = create("train", tmp_path, **keys)
    assert len(train) == 3
    (line,) = train.notes
    assert line.startswith("train: 4 names that systems and programs leave behind are ignored: ")
    named = create("train", tmp_path, **{**keys, "train": (".hidden/train-*.parquet", "._train-0.parquet")})
    assert (len(named), named.notes) == (6, ())
    with pytest.raises(DataError, match=r"matches x-\*.parquet \(it has train-\*.parquet, val.parquet\)"):
        create("train", tmp_path, **{**keys, "train": "x-*.parquet"})


# The verbs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tiny: Callable[..., Any], plain: Path) -> Callable[..., Any]:
    """The tiny recipe on the plain tree."""
    data = f"data={{name: image_folder, root: {plain}, workers: 0}}"
    return lambda *changes: tiny(
        data, "training.batch_size=2", "training.micro_batch=2", "scheduler.warmup_steps=0", *changes
    )


def test_validate_data_and_a_run_tell(
    recipe: Callable[..., Any], plain: Path, make_tree: MakeTree, tmp_path: Path
) -> None:
    make_tree("train/.ipynb_checkpoints/1.png", "val/a/._1.png")
    lines, data = opened_data(make_plan(recipe(), Machine()))
    told = {split: data[split]["notes"] for split in ("train", "val")}
    assert [line for line in lines if line.startswith("note ")] == [f"{'note':<12} {told[s][0]}" for s in told]
    assert told["val"] == ["val: 1 name that systems and programs leave behind is ignored: 1 ._* (first: a/._1.png)"]
    run(recipe(), tmp_path / "run", device="cpu", screen=Screen(io.StringIO()))
    log = (tmp_path / "run/train.log").read_text()
    assert [log.count(f"note: {line}") for (line,) in told.values()] == [1, 1]


def test_a_class_that_is_gone_is_told_when_the_run_goes_on(
    recipe: Callable[..., Any], plain: Path, make_tree: MakeTree, tmp_path: Path
) -> None:
    make_tree("train/new/1.png", "val/new/1.png")
    start = functools.partial(run, recipe(), tmp_path / "run", device="cpu", screen=Screen(io.StringIO()))
    start()
    shutil.rmtree(plain / "train/new")
    shutil.rmtree(plain / "val/new")
    with pytest.raises(CheckpointError, match=r"data have changed since .*3 classes before, 2 now; removed: 'new'; re"):
        start()
