from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convrun.data import tolerance
from convrun.data.folder_scan import scan_tree
from convrun.data.image_folder import ImageFolder
from convrun.data.image_set import BadImage, decode
from convrun.data.pipeline import EvaluationBatches
from convrun.data.tolerance import TRANSIENT, Tolerance, is_transient, retried
from convrun.errors import DataError


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of being slept, pauses are noted."""
    noted: list[float] = []
    monkeypatch.setattr(tolerance.time, "sleep", noted.append)
    return noted


class Failing:
    """Fails with the given errors, one after the other, then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, *_: Any) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "read"


@pytest.mark.parametrize("number", sorted(TRANSIENT))
def test_what_may_pass_is_tried_again(number: int, pauses: list[float]) -> None:
    assert retried(3, Failing(*[OSError(number, os.strerror(number))] * 3)) == "read"
    assert pauses == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_in_the_end_the_error_is_raised(retries: int, pauses: list[float]) -> None:
    read = Failing(*[OSError(errno.EIO, "Input/output error")] * 9)
    with pytest.raises(OSError, match="Input/output"):
        retried(retries, read)
    assert (read.calls, len(pauses)) == (retries + 1, retries)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG])
def test_what_will_not_pass_is_not(number: int, pauses: list[float]) -> None:
    read = Failing(OSError(number, os.strerror(number)))
    with pytest.raises(OSError, match=os.strerror(number)):
        retried(3, read)
    assert (read.calls, pauses) == (1, [])


def test_the_reason_of_an_error_counts_as_well() -> None:
    def translated() -> None:
        try:
            raise OSError(errno.ESTALE, "Stale file handle")
        except OSError as error:
            raise DataError(str(error)) from None

    with pytest.raises(DataError) as caught:
        translated()
    assert is_transient(caught.value)
    assert not is_transient(DataError("torn"))


def test_arguments_arrive() -> None:
    assert retried(1, max, 3, 5) == 5


@pytest.mark.parametrize("where", ["open", "read"])
@pytest.mark.parametrize("failures", [3, 4])
def test_a_file_system_that_hiccups_costs_nothing(
    where: str, failures: int, make_tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    root = make_tree("train/a/0.png", "val/a/0.png", "val/a/1.png")
    images = ImageFolder(scan_tree(str(root))[1], "val")
    hiccup = Failing(*[OSError(errno.EIO, "Input/output error")] * failures)
    if where == "open":
        genuine = os.open
        monkeypatch.setattr(os, "open", lambda path, *rest: (hiccup(), genuine(path, *rest))[1])
    else:
        opened = Image.open
        monkeypatch.setattr(Image, "open", lambda file, **keys: (hiccup(), opened(file, **keys))[1])
    batches = EvaluationBatches(images, Image.Image.copy, input_size=4, batch_size=2, tolerance=Tolerance(retries=3))
    if failures == 3:
        assert [batch.images[:, 0, 0, 0].tolist() for batch in batches] == [[1, 2]]
    else:
        with pytest.raises(DataError, match=r"val/a/0.png cannot be decoded: Input/output error; "):
            list(batches)
    assert pauses == [0.1, 0.2, 0.4]


def test_a_torn_file_is_read_once(tmp_path: Path, pauses: list[float]) -> None:
    (tmp_path / "a.png").write_bytes(b"torn")
    with pytest.raises(BadImage):
        retried(3, lambda: decode(tmp_path / "a.png", split="val", place="it"))
    with pytest.raises(BadImage, match="No such file or directory"):
        retried(3, lambda: decode(tmp_path / "gone.png", split="val", place="it"))
    assert pauses == []
