from __future__ import annotations

import pytest

from convrun.files.leftovers import is_leftover, leftover_kind

FOLDERS = (
    ".ipynb_checkpoints", ".git", ".Trash-1000", ".cache", "._a", ".AppleDouble", "__MACOSX", "__pycache__", "@eaDir",
    "#recycle", "#snapshot", "$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "System Volume Information", "lost+found",
    "FOUND.000", "cat.jpg.download", "@Recycle",
)  # fmt: skip
FILES = (
    ".DS_Store", "._0.jpg", ".hidden.jpg", "Thumbs.db", "thumbs.db", "ehthumbs.db", "Desktop.ini", "Icon\r",
    "a.jpg.part", "a.jpg.crdownload", "a.jpg.TMP", "a.jpg~", "a.jpg:Zone.Identifier", "a.jpg@SynoEAStream",
)  # fmt: skip
CLASSES = (
    "tmp", "core", "_private", "__other__", "0", "recycler", "recycled", "CVS", "a.part", "x.tmp", "b~", "Icon",
    "thumbs", "desktop", "cache", "git", "found.1", "lost", "build", "DS_Store", " .a", "#1", "@home", "$5",
    "Lost+Found", "mr.download", "node_modules", "~", "trash",
)  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_systems_leave(name: str) -> None:
    assert is_leftover(name, is_folder=True)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_systems_leave(name: str) -> None:
    assert is_leftover(name)


@pytest.mark.parametrize("name", CLASSES)
def test_what_may_be_a_class_is_none(name: str) -> None:
    assert not is_leftover(name, is_folder=True)


@pytest.mark.parametrize("name", ["0.jpg", "_0.jpg", "~0.jpg", "a.part.jpg", "Folder.jpg", "core", "tmp.png", "#0.png"])
def test_what_may_be_an_image_is_none(name: str) -> None:
    assert not is_leftover(name)


def test_many_names_are_one_kind() -> None:
    kinds = [leftover_kind(name) for name in ("._1.jpg", "._2.jpg", ".1.jpg.a8Zx", ".2.jpg.b9Yw", "1.part", "2.PART")]
    assert kinds == ["._*", "._*", ".*", ".*", "*.part", "*.part"]
