"""What becomes of images as they are found in the wild: pixels that can be told beforehand, or a clean error."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from convrun.contracts.data import BadImage
from convrun.data.decode import UnclearRange, decode
from convrun.data.formats import FORMATS
from tests.data.reading import load, one_file

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest takes away what image_set does to them
RED, GREEN = (255, 0, 0), (0, 255, 0)


def pixels(content: Any) -> Any:
    return np.asarray(decode(content)).tolist()


def saved(image: Image.Image, kind: str, **keys: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **keys)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG file (W3C PNG, section 5); kind 0 is grey, 2 colour."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body


def grey16(*values: int) -> npt.NDArray[np.uint16]:
    return np.array([values], np.uint16)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new(mode, (3, 2), 1)
    for content in (saved(image, "PNG"), image):
        assert decode(content).mode == "RGB"


def test_arrays_become_the_same_pixels() -> None:
    draws = np.random.default_rng(0)
    grey, colour = draws.integers(0, 256, (4, 6), np.uint8), draws.integers(0, 256, (4, 6, 3), np.uint8)
    assert np.array_equal(decode(grey), np.stack([grey] * 3, axis=2))
    for array in (colour, colour[::-1, ::2], np.asfortranarray(colour)):
        image = decode(array)
        assert (image.mode, np.array_equal(image, array)) == ("RGB", True)
        image.paste((0, 0, 0), (0, 0, 2, 2))
    assert colour.any(axis=2).all(), "the set's own pixels must not change"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((2, 2), np.uint16), r"an array is uint16 \[2, 2\], not uint8 \[h, w\] or \[h, w, 3\]"),
        (np.zeros((2, 2, 4), np.uint8), r"an array is uint8 \[2, 2, 4\], not"),
        ("a/path.png", "str is neither bytes nor a uint8 array nor an image of PIL's"),
        (None, "NoneType is neither bytes"),
    ],
)
def test_anything_else_is_the_sets_fault(content: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        decode(content)


def test_a_pil_image_that_is_only_opened_is_decoded_here(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "PNG")
    assert pixels(Image.open(io.BytesIO(whole))) == pixels(whole)
    with pytest.raises(BadImage, match="truncated"):
        decode(Image.open(io.BytesIO(whole[:2000])))


def test_equals_torchvisions_loader_and_ignores_exif_rotation(tmp_path: Path) -> None:
    from torchvision.datasets.folder import pil_loader

    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90°
    drawn = np.random.default_rng(0).integers(0, 256, (4, 8, 3), np.uint8)
    Image.fromarray(drawn).save(tmp_path / "a.jpg", exif=exif)
    image = decode((tmp_path / "a.jpg").read_bytes())
    assert image.size == (8, 4)
    assert np.array_equal(image, pil_loader(tmp_path / "a.jpg"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no image", "not an image of a format"), (b"", "not an image"), (png(1, 1, 8, 0, b"")[:20], ".")],
)
def test_bytes_that_are_no_image(content: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(content)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_16_bit_grey_the_high_byte_stays(kind: str) -> None:
    content = saved(Image.fromarray(grey16(0, 255, 256, 32768, 65535)), kind)
    assert pixels(content) == [[[v] * 3 for v in (0, 0, 1, 128, 255)]]


def test_as_pillow_does_with_16_bit_colour() -> None:
    assert pixels(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 255, 256, 65535))) == [[[0, 1, 255]]]


def test_16_bit_grey_with_the_bytes_in_the_other_order() -> None:
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 256, 65535))
    assert pixels(saved(image, "TIFF")) == [[[1] * 3, [255] * 3]]


@pytest.mark.parametrize(
    ("values", "cure"),
    [
        ((20, 79), r"set data\.grey_range=\[0, 255\], or to the values that are black and white in all images"),
        ((0, 1), r"=\[0, 1\]"),
        ((0, 700), r"=\[0, 1023\]"),
        ((0, 4095), r"=\[0, 4095\]"),
        ((0, 16383), r"=\[0, 16383\]"),
        ((20_000, 23_000), r"=\[20000, 23000\]"),  # 11 levels of grey
        ((200, 200), r"=\[0, 255\]"),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PGM"])
def test_a_16_bit_image_that_would_nearly_vanish_names_the_key(kind: str, values: tuple[int, int], cure: str) -> None:
    pgm = b"P5 2 1 65535\n" + struct.pack(">2H", *values)
    content = pgm if kind == "PGM" else saved(Image.fromarray(grey16(*values)), kind)
    with pytest.raises(
        UnclearRange, match=rf"would nearly vanish: .* lie in {values[0]}\.\.{values[1]}, of "
    ) as caught:
        decode(content)
    assert re.search(cure, caught.value.cure)


@pytest.mark.parametrize("values", [(0, 0), (0, 16384), (30_000, 30_000), (40_000, 45_000), (0, 65535)])
def test_other_16_bit_images_keep_the_high_byte(values: tuple[int, int]) -> None:
    assert pixels(saved(Image.fromarray(grey16(*values)), "PNG")) == [[[v >> 8] * 3 for v in values]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_range_means_the_same_in_every_image(kind: str) -> None:
    found = [
        np.asarray(decode(saved(Image.fromarray(grey16(*values)), kind), (0, 4095)))[0, :, 0].tolist()
        for values in ((0, 2048, 4095), (100, 2048, 2048), (4095, 60_000, 0))
    ]
    # round(255 × 2048 / 4095) = 128; round(255 × 100 / 4095) = 6; what is beyond white is white.
    assert found == [[0, 128, 255], [6, 128, 128], [255, 255, 0]]


def test_a_range_that_most_is_beyond_is_an_error() -> None:
    with pytest.raises(UnclearRange, match="most of its values are above 255, up to 4000"):
        decode(saved(Image.fromarray(grey16(0, 3000, 4000)), "PNG"), (0, 255))


def test_a_range_changes_no_image_of_8_bits() -> None:
    content = saved(Image.fromarray(np.array([[7, 200]], np.uint8)), "PNG")
    assert decode(content, (0, 4095)).tobytes() == decode(content).tobytes()


@pytest.mark.parametrize(("kind", "white"), [(np.int32, 100_000), (np.float32, 0.5)])
def test_a_range_makes_32_bits_readable(kind: Any, white: float) -> None:
    values = np.array([[-1, 0, white / 5, white]], kind)
    assert np.asarray(decode(saved(Image.fromarray(values), "TIFF"), (0, white)))[0, :, 0].tolist() == [0, 0, 51, 255]


@pytest.mark.parametrize("kind", [0, 2, 4, 6])  # grey, colour, each with an alpha channel
def test_16_bit_png_of_any_kind_is_never_lost(kind: int) -> None:
    colours, alpha = {0: (1, []), 2: (3, []), 4: (1, [65535]), 6: (3, [65535])}[kind]

    def content(high: int) -> bytes:
        values = [*[0] * colours, *alpha, *[high] * colours, *alpha]
        return png(2, 1, 16, kind, b"\0" + struct.pack(f">{len(values)}H", *values))

    assert pixels(content(65535)) == [[[0] * 3, [255] * 3]]
    with pytest.raises(UnclearRange, match="would nearly vanish: its") as caught:
        decode(content(16_000))
    with pytest.raises(UnclearRange):
        decode(content(255))
    assert caught.value.cure.startswith("set data.grey_range=" if kind == 0 else "convert the images to 8 bits")


def test_pgm_says_itself_which_value_is_white() -> None:
    for white in (255, 4095, 65535):
        values = struct.pack(">2B" if white < 256 else ">2H", 0, white)
        for grey_range in (None, (0.0, 65535.0)):
            image = decode(f"P5 2 1 {white}\n".encode() + values, grey_range)
            assert np.asarray(image)[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(("kind", "word"), [(np.int32, "integers"), (np.float32, "floating point")])
def test_pixels_without_a_range_are_refused(kind: Any, word: str) -> None:
    content = saved(Image.fromarray(np.ones((2, 2), kind)), "TIFF")
    with pytest.raises(BadImage, match=f"its pixels are {word} with 32 bits, and nothing tells which value is white"):
        pixels(content)


def test_one_bit_and_grey() -> None:
    assert pixels(saved(Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1"), "PNG")) == [[[0] * 3, [255] * 3]]
    assert pixels(saved(Image.fromarray(np.array([[7, 200]], np.uint8)), "PNG")) == [[[7] * 3, [200] * 3]]


def test_cmyk_is_converted_without_a_profile() -> None:
    """Pillow: 255 − ink, less black's share; a profile in the file is not applied, as in torchvision's loader."""
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert pixels(saved(image, "TIFF"))[0][0] == [255, 0, 0]
    red = np.array(pixels(saved(image, "JPEG", quality=100)))
    assert np.abs(red - RED).max() <= 2  # JPEG's own rounding


@pytest.mark.parametrize("transparency", [0, b"\x00\x80"])
def test_a_palettes_transparency_is_dropped(transparency: Any) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    assert pixels(saved(image, "PNG", transparency=transparency)) == [[[*RED], [*GREEN]]]


def test_an_alpha_channel_is_dropped() -> None:
    image = Image.new("RGBA", (1, 1), (9, 8, 7, 0))
    assert pixels(saved(image, "PNG")) == [[[9, 8, 7]]]


@pytest.mark.parametrize(("kind", "keys"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_of_an_animation_it_is_the_first_frame(kind: str, keys: Any) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in (RED, GREEN)]
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **keys)
    assert Image.open(io.BytesIO(content)).n_frames == 2
    assert pixels(content) == [[[*RED]] * 2] * 2


def test_a_name_tells_nothing_of_the_format(tmp_path: Path) -> None:
    """One of ImageNet's .JPEG files is a PNG."""
    (tmp_path / "n02105855_2933.JPEG").write_bytes(saved(Image.new("RGB", (1, 1), RED), "PNG"))
    assert load(one_file(tmp_path / "n02105855_2933.JPEG"), 0)[0].getpixel((0, 0)) == RED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_files_cut_anywhere_are_bad_images_or_whole(kind: str) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    content = saved(image, kind)
    whole, refused = pixels(content), 0
    for length in [*range(0, len(content), max(1, len(content) // 40)), len(content) - 1]:
        try:
            assert pixels(content[:length]) == whole
        except BadImage:
            refused += 1
    assert refused >= 40


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_files_with_flipped_bytes_never_raise_anything_else(kind: str) -> None:
    draws = np.random.default_rng(1)
    content = saved(Image.fromarray(draws.integers(0, 256, (9, 9, 3), np.uint8)), kind)
    for _ in range(200):
        broken = bytearray(content)
        broken[draws.integers(min(len(content), 200))] = draws.integers(256)
        try:
            assert decode(bytes(broken)).mode == "RGB"
        except BadImage as error:
            assert "\n" not in str(error)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    content = png(30_000, 30_000, 8, 2, bytes(1000))
    tracemalloc.start()
    with pytest.raises(BadImage, match="its header claims more than 178,956,970 pixels, so it is not decoded"):
        pixels(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def texts(size: int) -> dict[str, bytes]:
    """PNG's chunks of metadata, each with so many bytes once it is unpacked."""
    packed = zlib.compress(bytes(size))
    return {
        "zTXt": chunk(b"zTXt", b"k\0\0" + packed),
        "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed),
        "iCCP": chunk(b"iCCP", b"k\0\0" + packed),
        "plain iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + bytes(size)),
    }


@pytest.mark.parametrize("kind", texts(0))
@pytest.mark.parametrize("where", ["before", "after"])
def test_much_metadata_does_not_keep_a_png_from_being_read(kind: str, where: str) -> None:
    content = png(1, 1, 8, 2, b"\0\1\2\3", texts(3 << 20)[kind])
    if where == "after":
        whole, end = png(1, 1, 8, 2, b"\0\1\2\3"), chunk(b"IEND", b"")
        content = whole.removesuffix(end) + texts(3 << 20)[kind] + end
    assert pixels(content) == [[[1, 2, 3]]]


def test_many_texts_do_not_either() -> None:
    some = chunk(
        b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20))
    )  # each within Pillow's limit, 64 MB within the other
    assert pixels(png(1, 1, 8, 2, b"\0\1\2\3", *[some] * 70)) == [[[1, 2, 3]]]


@pytest.mark.parametrize("kind", [kind for kind in texts(0) if kind != "plain iTXt"])
def test_metadata_that_bloat_take_no_memory(kind: str) -> None:
    content = png(1, 1, 8, 2, b"\0\1\2\3", texts(50 << 20)[kind])
    tracemalloc.start()
    assert pixels(content) == [[[1, 2, 3]]]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_broken_pixels_stay_broken_whatever_the_metadata() -> None:
    whole = png(1, 2, 8, 2, b"\0\1\2\3" * 2, texts(3 << 20)["iTXt"])
    for content in (whole[:-24], whole[:60], whole.replace(b"IDAT", b"IDAX")):
        with pytest.raises(BadImage):
            pixels(content)


def test_lengths_that_lie_end_the_search() -> None:
    for length in (0, 5, 2**31, 2**32 - 1):
        with pytest.raises(BadImage):
            pixels(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", length) + b"tEXt" + bytes(9))


@pytest.mark.parametrize(
    "junk",
    [
        chunk(b"iCCP", b"k\0\0" + zlib.compress(b"no profile")),
        chunk(b"iCCP", b"k\0\0no zlib"),
        chunk(b"eXIf", b"no exif"),
        chunk(b"tEXt", b"k\0" + b"a" * (2 << 20)),
    ],
)
def test_metadata_that_are_junk_cost_nothing(junk: bytes) -> None:
    assert pixels(png(1, 1, 8, 2, b"\0\1\2\3", junk)) == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_a_jpegs_broken_exif_costs_nothing(exif: bytes) -> None:
    content = saved(Image.new("RGB", (8, 8), (128, 128, 128)), "JPEG", exif=exif)
    assert np.abs(np.array(pixels(content)) - 128).max() <= 1


def test_postscript_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS to Ghostscript, whatever the file's name."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was called"))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(%pipe%id) (r) file\n"
    assert Image.open(io.BytesIO(content)).format == "EPS"
    with pytest.raises(BadImage, match=r"it is not an image of a format that convrun reads \(JPEG, PNG, "):
        pixels(content)


def test_formats_are_those_that_data_sets_use() -> None:
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN) | {"AVIF", "WEBP", "JPEG2000"}  # a build of Pillow may lack these


SCRIPT = """
import io, logging
from PIL import Image
from convrun.data.decode import decode
Image.MAX_IMAGE_PIXELS = 1  # 2 is allowed, with a warning
image = Image.new("P", (2, 1))
image.putpalette([255, 0, 0, 0, 255, 0])
file = io.BytesIO()
image.save(file, format="PNG", transparency=b"\\x00\\x80")
for _ in range(3):
    decode(file.getvalue())
"""


def test_pillows_warnings_are_not_shown() -> None:
    done = subprocess.run([sys.executable, "-W", "always", "-c", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
