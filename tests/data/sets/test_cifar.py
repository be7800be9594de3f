from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convrun.data.sets.cifar import READERS, CifarImages
from convrun.errors import DataError
from tests.data.reading import load

NAMES = {"cifar10": "labels", "cifar100": "fine_labels"}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few images in the published format; torchvision is told their MD5 sums instead of the published ones."""
    reader: Any = READERS[name]
    folder = tmp_path / reader.base_folder
    folder.mkdir()
    draw = np.random.default_rng(0)

    def write(file: str, content: dict[str, Any]) -> str:
        (folder / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    def batch(images: int) -> dict[str, Any]:
        return {"data": draw.integers(0, 256, (images, 3072), np.uint8), NAMES[name]: [i % 3 for i in range(images)]}

    for files, images in (("train_list", 4), ("test_list", 2)):
        published = [[file, write(file, batch(images))] for file, _ in getattr(reader, files)]
        monkeypatch.setattr(reader, files, published)
    md5 = write(reader.meta["filename"], {reader.meta["key"]: ["ant", "bee", "cow"]})
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5})
    monkeypatch.setattr(reader, "url", "http://127.0.0.1:9/none.tar.gz")  # nothing listens there
    return tmp_path


def test_train_and_test_batches_are_the_splits(name: str, root: Path) -> None:
    train, val = (CifarImages(name, str(root), split) for split in ("train", "val"))
    reader: Any = READERS[name]
    assert (len(train), len(val)) == (4 * len(reader.train_list), 2)
    assert val.class_names == ("ant", "bee", "cow")
    content = pickle.loads((root / reader.base_folder / reader.test_list[0][0]).read_bytes())
    image, label = load(val, 1)
    assert (image.mode, image.size, label) == ("RGB", (32, 32), 1)
    assert np.array_equal(np.asarray(image).transpose(2, 0, 1).reshape(-1), content["data"][1])
    assert val.place(1) == f"{name} val image 1"


def test_missing_files(name: str, root: Path) -> None:
    with pytest.raises(DataError, match=rf"^{name}: {root}/sub/.* is missing; set data.root=FOLDER .*download=true"):
        CifarImages(name, str(root / "sub"), "train")


class Trap:
    sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Trap, "sprung", True)


@pytest.mark.parametrize("which", ["test_list", "meta"])
def test_a_changed_file_is_never_unpickled(name: str, root: Path, which: str) -> None:
    reader: Any = READERS[name]
    file = reader.meta["filename"] if which == "meta" else reader.test_list[0][0]
    (root / reader.base_folder / file).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=f"{file} is not the published file .its MD5 differs"):
        CifarImages(name, str(root), "val")
    assert not Trap.sprung
    pickle.loads(pickle.dumps(Trap()))
    assert Trap.sprung
    Trap.sprung = False


def test_files_that_are_there_are_not_downloaded(name: str, root: Path) -> None:
    assert len(CifarImages(name, str(root), "val", download=True)) == 2


def test_a_download_without_network(name: str, root: Path) -> None:
    message = rf"^{name} cannot be downloaded from http://127.0.0.1:9.*; fetch and unpack .*data.download=false$"
    with pytest.raises(DataError, match=message):
        CifarImages(name, str(root / "sub"), "train", download=True)


def test_a_folder_that_cannot_be_made(name: str, root: Path) -> None:
    (root / "file").touch()
    with pytest.raises(DataError, match=r"cannot be downloaded .* to .*/file/sub: "):
        CifarImages(name, str(root / "file/sub"), "train", download=True)
