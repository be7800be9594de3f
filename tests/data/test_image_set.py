from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convrun.data.image_set import decode
from convrun.errors import DataError


def png(mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (3, 2), 1).save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert decode(png(mode), split="train", place="x").mode == "RGB"


def test_equals_torchvisions_loader_and_ignores_exif_rotation(tmp_path: Path) -> None:
    from torchvision.datasets.folder import pil_loader

    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90°
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    image = decode(tmp_path / "a.jpg", split="train", place="a.jpg")
    assert image.size == (8, 4)
    assert np.array_equal(image, pil_loader(tmp_path / "a.jpg"))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=rf"^split val, image {path} cannot be decoded: .*truncated.*; replace"):
        decode(path, split="val", place=str(path))


@pytest.mark.parametrize(
    ("content", "reason"), [(b"no image", "not an image of a format"), (b"", "not an image"), (png("L")[:20], "")]
)
def test_bytes_that_are_no_image(content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=f"^split train, image row 3 cannot be decoded: .*{reason}.*; replace"):
        decode(content, split="train", place="row 3")


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image it cannot be decoded: No such file"):
        decode(tmp_path / "gone.jpg", split="train", place="it")
