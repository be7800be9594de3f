from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convrun.data.sets.npz import NpzImages, scan_npz
from convrun.errors import DataError
from tests.data.reading import load

Arrays = dict[str, Any]


def arrays(**changes: Any) -> Arrays:
    draw = np.random.default_rng(0)
    made = {
        "train_images": draw.integers(0, 256, (6, 5, 4), np.uint8),
        "train_labels": np.array([[0], [1], [2], [0], [1], [2]]),
        "val_images": draw.integers(0, 256, (3, 5, 4), np.uint8),
        "val_labels": np.array([2, 1, 0], np.uint8),
        **changes,
    }
    return {key: value for key, value in made.items() if value is not None}


def save(folder: Path, made: Arrays) -> str:
    np.savez(folder / "set.npz", **made)
    return str(folder / "set.npz")


def test_grey_images_with_column_labels(tmp_path: Path) -> None:
    made = arrays()
    path = save(tmp_path, made)
    images = NpzImages(path, "train")
    assert (len(images), images.class_names) == (6, ("0", "1", "2"))
    image, label = load(images, 4)
    assert (image.mode, image.size, label, type(label)) == ("RGB", (4, 5), 1, int)
    assert np.array_equal(np.asarray(image)[..., 2], made["train_images"][4])
    assert images.place(4) == f"{path} train image 4"


def test_rgb_images_and_class_names(tmp_path: Path) -> None:
    pixels = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)
    images = NpzImages(save(tmp_path, arrays(val_images=pixels, class_names=["a", "b", "ç"])), "val")
    assert images.class_names == ("a", "b", "ç")
    assert np.array_equal(load(images, 1)[0], pixels[1])


def test_counts_come_from_the_labels(tmp_path: Path) -> None:
    path = save(tmp_path, arrays())
    assert {split: len(labels) for split, labels in scan_npz(path).labels.items()} == {"train": 6, "val": 3}
    assert len(scan_npz(path).class_names) == 3
    assert len(scan_npz(path, num_classes=5).class_names) == 5  # the labels cannot show that there are not
    assert len(scan_npz(path, num_classes=2).class_names) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"val_labels": None},
            "has no array val_labels .it has train_images, train_labels, val_images.; set data.path",
        ),
        ({"val_images": None}, "has no array val_images"),
        ({"val_images": np.zeros((3, 5, 4))}, r"val_images is float64 \[3, 5, 4\], not uint8"),
        ({"val_images": np.zeros((3, 5, 4, 2), np.uint8)}, r"val_images is uint8 \[3, 5, 4, 2\], not"),
        ({"val_images": np.zeros((3, 5), np.uint8)}, r"val_images is uint8 \[3, 5\], not"),
        ({"val_images": np.zeros((2, 5, 4), np.uint8)}, "val_images has 2 images but val_labels has 3 labels"),
        ({"val_labels": np.zeros(3, complex)}, r"val_labels is complex128 \[3\], not integers"),
        ({"train_labels": np.zeros((6, 2), int)}, r"train_labels is int64 \[6, 2\], not integers \[n\] or \[n, 1\]"),
        ({"val_labels": np.array([0, -1, 2])}, "val_labels go down to -1; classes are counted from 0"),
        ({"val_labels": np.zeros(0, int)}, "val_labels is empty"),
        ({"class_names": ["a", "b"]}, r"train_labels go up to 2, but class_names has 2 names; .* 0\.\.1"),
        ({"class_names": np.array([1, 2, 3])}, r"class_names is int64 \[3\], not text"),
        ({"class_names": np.array(["a", "b", "c"], object)}, "cannot be read: it holds pickled objects"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, changes: Arrays, message: str) -> None:
    path = save(tmp_path, arrays(**changes))
    with pytest.raises(DataError, match=f"^{path}:? .*{message}"):
        NpzImages(path, "val")


def test_val_may_be_the_test_images(tmp_path: Path) -> None:
    path = save(tmp_path, arrays(test_images=np.full((2, 5, 4), 9, np.uint8), test_labels=np.array([1, 2])))
    images = NpzImages(path, "val", val="test")
    assert (len(images), images.read(1)[1], images.read(1)[0].max()) == (2, 2, 9)


@pytest.mark.parametrize(
    ("others", "cure"),
    [({}, "val_labels, or data.val=null evaluation=null"),
     ({"test_images": np.zeros((2, 5, 4), np.uint8), "test_labels": np.array([1, 2])}, "data.val=test, or data.val=n")],
)  # fmt: skip
def test_a_file_without_validation_images_gets_a_cure_that_works(tmp_path: Path, others: Arrays, cure: str) -> None:
    path = save(tmp_path, arrays(val_images=None, val_labels=None, **others))
    with pytest.raises(DataError, match=cure):
        scan_npz(path)
    for val in (None, *(["test"] if others else [])):
        assert len(NpzImages(path, "train", val=val)) == 6
        assert len(NpzImages(path, "val", val=val)) == (2 if val else 0)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.npz does not exist; set data.path=FILE"):
        scan_npz(str(tmp_path / "gone.npz"))


@pytest.mark.parametrize("content", [b"", b"something else", b"PK\x03\x04 cut short"])
def test_files_that_are_no_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a.npz cannot be read: .*; set data.path=FILE"):
        scan_npz(str(tmp_path / "a.npz"))


def test_one_npy_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(DataError, match="cannot be read: it is one array"):
        scan_npz(str(tmp_path / "a.npy"))


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("key", ["train_images", "train_labels", "val_images", "val_labels", "class_names"])
def test_a_file_runs_no_code(key: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    payload = np.empty(3, object)
    payload[:] = [Payload(mark)] * 3
    path = save(tmp_path, arrays(**{key: payload}))
    with np.load(path, allow_pickle=True) as file:
        file[key]
    assert mark.exists(), "the payload works where pickles are allowed"
    mark.unlink()
    with pytest.raises(DataError, match="holds pickled objects"):
        NpzImages(path, "train" if "train" in key else "val")
    assert not mark.exists()
