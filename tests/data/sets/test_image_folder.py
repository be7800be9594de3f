from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder as TorchvisionFolder

from convrun.data.sets import image_folder
from convrun.data.sets.image_folder import ImageFolder, scan_tree
from convrun.errors import DataError
from tests.data.reading import load

MakeTree = Callable[..., Path]
TREE = (
    "train/b/2.png", "train/b/10.png", "train/b/1.PNG", "train/B/x.jpeg", "train/a b/z.png",
    "train/b/a-b/deep.png", "train/b/a/c/deep.png", "train/b/a/last.png", "train/b/ä/ü.png",
    "val/b/1.png", "val/B/1.png", "val/a b/1.png",
)  # fmt: skip


def test_order_and_labels_are_torchvisions(make_tree: MakeTree) -> None:
    root = make_tree(*TREE)
    (root / "train/b/notes.txt").write_text("no image")
    (root / "train/stray.png").write_text("in no class")
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (root / "train/b/1.PNG").rename(elsewhere / "linked.png")
    (root / "train/b/link").symlink_to(elsewhere)
    theirs = TorchvisionFolder(root / "train")
    ours = ImageFolder(scan_tree(str(root))[0])
    assert len(ours) == 9
    assert list(ours.class_names) == theirs.classes == ["B", "a b", "b"]
    assert [(ours.place(i), ours.read(i)[1]) for i in range(len(ours))] == theirs.samples
    for index in range(len(ours)):
        (image, label), (their_image, their_label) = load(ours, index), theirs[index]
        assert label == their_label
        assert np.array_equal(image, their_image)


def test_survives_pickling(make_tree: MakeTree) -> None:
    images = ImageFolder(scan_tree(str(make_tree(*TREE)))[0])
    copy = pickle.loads(pickle.dumps(images))
    assert [copy.place(i) for i in range(len(copy))] == [images.place(i) for i in range(len(images))]


def test_a_second_scan_walks_only_after_a_change(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree("train/a/1.png", "val/a/1.png")
    walked = []
    walk = os.walk
    monkeypatch.setattr(image_folder.os, "walk", lambda *a, **k: walked.append(a) or walk(*a, **k))
    scan_tree(str(root))
    scan_tree(str(root))
    assert len(walked) == 2
    make_tree("train/a/2.png")
    os.utime(root / "train/a", ns=(1, 1))
    assert len(scan_tree(str(root))[0]) == 2
    assert len(walked) == 3


def test_a_home_folder_is_expanded(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(make_tree("set/train/a/1.png", "set/val/a/1.png")))
    assert len(scan_tree("~/set")[0]) == 1


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"folder {tmp_path}/gone does not exist; set data.root=FOLDER"):
        scan_tree(str(tmp_path / "gone"))


def test_root_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "set.tar").touch()
    with pytest.raises(DataError, match=r"set.tar is not a folder; set data.root=FOLDER"):
        scan_tree(str(tmp_path / "set.tar"))


def test_missing_train_folder_says_what_is_there(make_tree: MakeTree) -> None:
    with pytest.raises(DataError, match=r"no folder train \(it has training, val\); .*data.train_folder=NAME"):
        scan_tree(str(make_tree("training/a/1.png", "val/a/1.png")))


def test_missing_val_folder_in_other_names(make_tree: MakeTree) -> None:
    with pytest.raises(DataError, match=r"no folder dev \(it has t, val\); .*data.val_folder=NAME"):
        scan_tree(str(make_tree("t/a/1.png", "val/a/1.png")), "t", "dev")


def test_empty_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder train \(it is empty\)"):
        scan_tree(str(tmp_path))


def test_no_class_folder(make_tree: MakeTree) -> None:
    with pytest.raises(DataError, match=r"val has no class folder; images belong in .*val/CLASS/"):
        scan_tree(str(make_tree("train/a/1.png", "val/1.png")))


def test_empty_class_folders_are_named(make_tree: MakeTree) -> None:
    root = make_tree("train/a/1.png", "val/a/1.png")
    for name in "bcdef":
        (root / "train" / name).mkdir()
        (root / "val" / name).mkdir()
    (root / "train/f/readme.txt").touch()
    with pytest.raises(
        DataError,
        match=r"train: no image in class folders b, c, d and 2 more \(left out: 1 .txt .*; add images \(JPEG, ",
    ):
        scan_tree(str(root))


@pytest.mark.parametrize("place", ["", "train", "train/a", "val/a/deep"])
def test_a_folder_that_cannot_be_read_is_named(
    place: str, make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree("train/a/1.png", "val/a/1.png", "val/a/deep/1.png")
    closed, scandir = str(root / place), os.scandir

    def refuse(folder: str | Path) -> object:  # tests may run as root, whom no permission stops
        if str(folder) == closed:
            raise PermissionError(13, "Permission denied", closed)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=f"the folder {closed} cannot be read: Permission denied; check"):
        scan_tree(str(root))


@pytest.mark.parametrize(("link", "target"), [("train/a/again", "."), ("train/a/deep/up", ".."), ("train/loop", "..")])
def test_a_link_that_leads_back_is_named(link: str, target: str, make_tree: MakeTree) -> None:
    root = make_tree("train/a/1.png", "train/a/deep/2.png", "val/a/1.png", "val/loop/1.png")
    (root / link).symlink_to(target)
    with pytest.raises(DataError, match=rf"the link {root}/{link} leads back to {root}\S*, which it lies in; delete"):
        scan_tree(str(root))


def test_links_to_elsewhere_and_to_other_classes_are_followed(make_tree: MakeTree) -> None:
    root = make_tree("train/a/1.png", "train/ab/2.png", "val/a/1.png", "val/ab/1.png", "more/3.png")
    (root / "train/a/ab").symlink_to("../ab")
    (root / "train/a/more").symlink_to("../../more")
    assert len(scan_tree(str(root))[0]) == 4


def test_a_class_name_that_is_no_text_is_refused(make_tree: MakeTree) -> None:
    root = make_tree("train/a/1.png", "val/a/1.png", f"train/{os.fsdecode(b'caf' + bytes([0xE9]))}/1.png")
    with pytest.raises(DataError, match=r"the class folder .*train/caf\\udce9 has a name that is not UTF-8; rename it"):
        scan_tree(str(root))


def test_file_names_may_be_any_bytes(make_tree: MakeTree) -> None:
    names = [b"caf\xe9.png", b"new\nline.png", "ü–.png".encode()]
    root = make_tree(*(f"train/a/{os.fsdecode(name)}" for name in names), "val/a/1.png")
    images = ImageFolder(scan_tree(str(root))[0])
    assert sorted(load(images, i)[0].getpixel((0, 0))[0] for i in range(3)) == [0, 1, 2]
    assert {images.place(i) for i in range(3)} == {
        f"{root}/train/a/{name}" for name in (r"caf\udce9.png", r"new\nline.png", "ü–.png")
    }


def test_class_names_are_never_followed_out_of_root(make_tree: MakeTree, tmp_path: Path) -> None:
    """A folder's name holds no `/`, so all that is read lies below root, but for links someone made."""
    root = make_tree("set/train/a..png/1.png", "set/val/a..png/1.png", "secret.png")
    images = ImageFolder(scan_tree(str(root / "set"))[0])
    assert [images.place(i) for i in range(len(images))] == [f"{root}/set/train/a..png/1.png"]
