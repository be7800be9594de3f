from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convrun.contracts.data import BadImage
from convrun.data import sample
from convrun.data.pipeline import EvaluationBatches
from convrun.data.sample import TRANSIENT, Images, Tolerance, is_transient
from convrun.data.sets import image_folder
from convrun.data.sets.image_folder import ImageFolder, scan_tree
from convrun.data.skipped import SkippedImage
from convrun.errors import DataError
from tests.data.reading import load, one_file


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of being slept, pauses are noted."""
    noted: list[float] = []
    monkeypatch.setattr(sample.time, "sleep", noted.append)
    return noted


class Failing:
    """Fails with the given errors, one after the other, then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, *_: Any) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


class OneImage:
    """An image set of one grey image, whose reading fails as told."""

    class_names = ("a",)

    def __init__(self, *errors: BaseException) -> None:
        self.fail = Failing(*errors)

    def __len__(self) -> int:
        return 1

    def read(self, index: int) -> tuple[Any, int]:
        self.fail()
        return np.zeros((2, 2), np.uint8), 0

    def place(self, index: int) -> str:
        return "it"


# Again --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(TRANSIENT))
def test_what_may_pass_is_tried_again(number: int, pauses: list[float]) -> None:
    images = OneImage(*[OSError(number, os.strerror(number))] * 3)
    assert load(images, 0)[1] == 0
    assert pauses == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_in_the_end_the_error_is_raised(retries: int, pauses: list[float]) -> None:
    images = OneImage(*[OSError(errno.EIO, "Input/output error")] * 9)
    with pytest.raises(DataError, match=r"^split val, image it cannot be decoded: Input/output error; replace"):
        Images(images, "val", Tolerance(retries=retries)).load(0)
    assert (images.fail.calls, len(pauses)) == (retries + 1, retries)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG])
def test_what_will_not_pass_is_not(number: int, pauses: list[float]) -> None:
    images = OneImage(OSError(number, os.strerror(number)))
    with pytest.raises(DataError, match=os.strerror(number)):
        load(images, 0)
    assert (images.fail.calls, pauses) == (1, [])


def test_the_reason_of_an_error_counts_as_well(pauses: list[float]) -> None:
    def translated() -> None:
        try:
            raise OSError(errno.ESTALE, "Stale file handle")
        except OSError as error:
            raise DataError(str(error)) from None

    with pytest.raises(DataError) as caught:
        translated()
    assert is_transient(caught.value)
    assert not is_transient(DataError("torn"))
    images = OneImage(caught.value)
    load(images, 0)
    assert pauses == [0.1]


@pytest.mark.parametrize("where", ["open", "read"])
@pytest.mark.parametrize("failures", [3, 4])
def test_a_file_system_that_hiccups_costs_nothing(
    where: str, failures: int, make_tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    root = make_tree("train/a/0.png", "val/a/0.png", "val/a/1.png")
    images = ImageFolder(scan_tree(str(root))[1])
    hiccup = Failing(*[OSError(errno.EIO, "Input/output error")] * failures)
    if where == "open":
        genuine = os.open
        monkeypatch.setattr(os, "open", lambda path, *rest: (hiccup(), genuine(path, *rest))[1])
    else:
        opened = image_folder.opened
        monkeypatch.setattr(image_folder, "opened", lambda path: (hiccup(), opened(path))[1])
    batches = EvaluationBatches(images, Image.Image.copy, input_size=4, batch_size=2, tolerance=Tolerance(retries=3))
    if failures == 3:
        assert [batch.images[:, 0, 0, 0].tolist() for batch in batches] == [[1, 2]]
    else:
        with pytest.raises(DataError, match=r"val/a/0.png cannot be decoded: Input/output error; "):
            list(batches)
    assert pauses == [0.1, 0.2, 0.4]


def test_a_torn_file_is_read_once(tmp_path: Path, pauses: list[float]) -> None:
    (tmp_path / "a.png").write_bytes(b"torn")
    with pytest.raises(DataError, match="not an image of a format"):
        load(one_file(tmp_path / "a.png"), 0)
    with pytest.raises(DataError, match="No such file or directory"):
        load(one_file(tmp_path / "gone.png"), 0)
    assert pauses == []


# What is the image's fault ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [BadImage("it is torn"), OSError(errno.ENOENT, "gone"), OSError("it is torn")])
def test_a_bad_image_is_skipped_where_the_recipe_says_so(error: Exception) -> None:
    reason = error.reason if isinstance(error, BadImage) else error.strerror or str(error)
    skipping = Images(OneImage(error), "val", Tolerance(skips_bad_images=True))
    assert skipping.load(0) == SkippedImage("val", 0, "it", reason)
    with pytest.raises(DataError, match=f"^split val, image it cannot be decoded: {reason}; replace the file, delete"):
        load(OneImage(error), 0, "val")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "^split train, image it: no memory left to decode it; lower data.workers or data.prefetch$"),
        (DataError("the copy is damaged"), "^the copy is damaged$"),
        (KeyError("x"), "^split train, image it cannot be loaded: KeyError: 'x'; run again with --debug to see where$"),
    ],
)
def test_what_is_not_its_fault_is_never_skipped(error: Exception, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Images(OneImage(error), "train", Tolerance(skips_bad_images=True)).load(0)


def test_a_range_is_the_sets_and_never_skipped() -> None:
    images: Any = OneImage()
    content = io.BytesIO()
    Image.fromarray(np.array([[0, 255]], np.uint16)).save(content, "PNG")
    images.read = lambda index: (content.getvalue(), 0)
    message = (
        r"^split val, image it would nearly vanish: its grey values have 16 bits and lie in 0\.\.255, of 0\.\.65535; "
        r"set data.grey_range=\[0, 255\], or to the values that are black and white in all images$"
    )
    with pytest.raises(DataError, match=message):
        Images(images, "val", Tolerance(skips_bad_images=True)).load(0)
    images.grey_range = (0, 255)
    assert np.asarray(load(images, 0)[0])[0, :, 0].tolist() == [0, 255]


def test_a_set_that_gives_something_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OneImage, "read", lambda self, index: ("it.png", 0))
    with pytest.raises(
        DataError, match=r"^split train, image it cannot be loaded: TypeError: str is neither bytes nor"
    ):
        load(OneImage(), 0)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=rf"^split val, image {path} cannot be decoded: .*truncated.*; replace"):
        load(one_file(path), 0, "val")


def test_a_file_of_terabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(1 << 42)  # takes no room
    with pytest.raises(DataError, match=r"a.png cannot be decoded: it has more than 2,147,483,648 bytes, as no image"):
        load(one_file(tmp_path / "a.png"), 0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", r"it is empty \(0 bytes\), not an image"),
        ("folder", "it is a folder, not a file"),
        ("pipe", "it is a named pipe, not a file"),
        ("device", "it is a device, not a file"),
        ("loop", "Too many levels of symbolic links"),
        ("dangling", "No such file or directory"),
    ],
)
def test_what_is_no_file_does_not_hang(kind: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    make = {
        "empty": path.touch, "folder": path.mkdir, "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"), "loop": lambda: path.symlink_to(path),
        "dangling": lambda: path.symlink_to("nowhere"),
    }  # fmt: skip
    make[kind]()
    with pytest.raises(DataError, match=f"^split val, image {path} cannot be decoded: {reason}; replace the file"):
        load(one_file(path), 0, "val")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:  # tests may run as root, whom no permission stops
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DataError, match=r"image .*/a.png cannot be decoded: Permission denied; "):
        load(one_file(tmp_path / "a.png"), 0)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"torn")
    (tmp_path / "empty.png").touch()
    before = len(os.listdir("/proc/self/fd"))
    for name in ("torn.png", "empty.png", ".", "gone"):
        with pytest.raises(DataError):
            load(one_file(tmp_path / name), 0)
    assert len(os.listdir("/proc/self/fd")) == before
