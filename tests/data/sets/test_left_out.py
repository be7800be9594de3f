"""Which files are images, and what is told of the others."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, _imaging
from torchvision.datasets.folder import IMG_EXTENSIONS

from convrun.contracts.data import BadImage
from convrun.data import decode, formats
from convrun.data.formats import ALWAYS, FORMATS, OPTIONAL, format_of, is_built_in
from convrun.data.sets import image_folder
from convrun.data.sets.image_folder import ImageFolder, scan_tree
from convrun.errors import DataError
from tests.data.reading import load

MakeTree = Callable[..., Path]
ENDINGS = sorted(ending for endings in FORMATS.values() for ending in endings)


@pytest.fixture
def plain(make_tree: MakeTree) -> Path:
    image_folder._scan.cache_clear()
    return make_tree("train/a/1.png", "train/b/2.png", "val/a/1.png", "val/b/2.png")


def encoded(name: str) -> bytes:
    image = Image.fromarray(np.full((8, 8, 3), 99, np.uint8))
    if name == ".pfm":
        return b"Pf\n8 8\n-1.0\n" + np.full((8, 8), 0.5, "<f4").tobytes()
    kind = {".mpo": "MPO", ".pbm": "PPM", ".pnm": "PPM"}.get(name, Image.registered_extensions().get(name))
    image.save(file := io.BytesIO(), kind)
    return file.getvalue()


def test_endings_are_all_that_pillow_registers_for_these_formats() -> None:
    theirs = {ending for ending, name in Image.registered_extensions().items() if name in FORMATS}
    assert theirs | {".mpo"} == set(ENDINGS) == ALWAYS | OPTIONAL.keys()
    assert set(IMG_EXTENSIONS) < set(ENDINGS)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_the_decoder_reads_is_used_in_any_case(ending: str, plain: Path) -> None:
    content = encoded(ending)
    for number, name in enumerate((ending, ending.upper())):
        (plain / f"train/b/x{number}{name}").write_bytes(content)
    train, _ = scan_tree(str(plain))
    assert (len(train), train.notes) == (4, ())
    grey_range = (0.0, 1.0) if ending == ".pfm" else None
    assert load(ImageFolder(train, grey_range), 3)[0].size == (8, 8)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["a/x.heic", "a/y.HEIC"], r"2 .* are left out: 2 \.heic \(first: a/x\.heic; convert them to JPEG or PNG\)"),
        (["a/notes.txt"], r"train: 1 file that convrun does not read is left out: 1 \.txt \(first: a/notes\.txt\)$"),
        (["a/x.123", "b/core"], r"2 without an ending \(first: a/x\.123\)"),
        (["labels.csv"], r"train: 1 file that lies in no class folder is left out: 1 \.csv \(first: labels\.csv\)$"),
        (["x.jpg", "y.jpg", "README"], r"3 files that lie in no class folder are left out: 2 \.jpg .* 1 without an .*; "
                                       r"images belong in .*/train/CLASS/$"),
        (["../x.jpg", "../README.md"], r": 1 file that lies in no class folder is left out: 1 \.jpg .*train/CLASS/$"),
        (["a/new\nline.doc"], r"a/new\\nline\.doc"),
    ],
)  # fmt: skip
def test_other_files_are_counted_by_ending_with_an_example_and_the_cure(
    files: list[str], told: str, plain: Path
) -> None:
    for name in files:
        (plain / "train" / name).write_bytes(b"text")
    (line,) = scan_tree(str(plain))[0].notes
    assert re.search(told, line), line


@pytest.mark.parametrize("ending", [".jpg", ".png", ".gif", ".webp", ".tif", ".bmp", ".ppm", ".jp2", ".avif"])
def test_an_image_without_a_known_ending_is_told_and_not_used(ending: str, plain: Path) -> None:
    (plain / "train/a/README").write_text("not this one")
    (plain / "train/a/img_1").write_bytes(content := encoded(ending))
    name = format_of(content[:16])
    assert ending in FORMATS[name]
    train, _ = scan_tree(str(plain))
    assert len(train) == 2
    assert f"2 without an ending (first: a/README; a/img_1 is {name} by its first bytes: give" in train.notes[0]


def test_a_pipe_without_an_ending_holds_nothing_up(plain: Path) -> None:
    os.mkfifo(plain / "train/a/pipe")
    assert "1 without an ending" in scan_tree(str(plain))[0].notes[0]


@pytest.mark.parametrize(("name", "ending"), [("AVIF", ".avif"), ("WEBP", ".webp"), ("JPEG2000", ".jp2")])
def test_a_format_that_pillow_was_built_without_is_told(
    name: str, ending: str, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_built_in(name)
    (plain / f"train/a/x{ending}").write_bytes(content := encoded(ending))
    for module in (formats, decode):
        monkeypatch.setattr(module, "is_built_in", lambda known: known != name)
    decode._formats.cache_clear()
    train, _ = scan_tree(str(plain))
    assert len(train) == 2
    assert f"1 {ending} (first: a/x{ending}; the installed Pillow was built without {name}: install" in train.notes[0]
    with pytest.raises(BadImage, match=rf"convrun reads \((?!.*{name}\b).*\)"):
        decode.decode(content)
    decode._formats.cache_clear()


def test_what_pillow_was_built_with_is_found_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = PathFinder.find_spec

    def find(name: str, path: object = None) -> object:
        return None if name in ("_webp", "_avif") else found(name, path)  # type: ignore[arg-type]

    monkeypatch.setattr(PathFinder, "find_spec", find)
    monkeypatch.setattr(sys.modules["PIL"], "_imaging", object())
    formats.is_built_in.cache_clear()
    try:
        assert [name for name in FORMATS if not is_built_in(name)] == ["WEBP", "JPEG2000", "AVIF"]
    finally:
        formats.is_built_in.cache_clear()
    assert hasattr(_imaging, "jpeg2k_decoder")


def test_a_class_of_unread_files_alone_is_an_error_that_says_so(plain: Path) -> None:
    (plain / "train/c").mkdir()
    (plain / "train/c/1.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no image in class folder c \(left out: 1 .heic \(first: c/1.heic; convert"):
        scan_tree(str(plain))


def test_counts_of_many_kinds_stay_small(plain: Path) -> None:
    for number in range(1100):
        (plain / f"train/a/x.e{number}").touch()
    (line,) = scan_tree(str(plain))[0].notes
    assert line.startswith("train: 1,100 files that convrun does not read are left out: 100 others (first: ")
    assert line.endswith(" and 996 more")
