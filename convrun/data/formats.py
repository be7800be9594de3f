"""Which image formats convrun reads, and what their files are called; Pillow, which decodes them, is not loaded."""

from __future__ import annotations

import functools
import re

# Pillow knows dozens of formats, and hands some to other programs: of an EPS file, Ghostscript runs the code. The
# endings are those that Pillow registers for them, and `.mpo`: JPEGs of which the first one is read.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "AVIF": (".avif", ".avifs"),
}
# Pillow can be built without these.
OPTIONAL = {ending: name for name in ("WEBP", "JPEG2000", "AVIF") for ending in FORMATS[name]}
ALWAYS = frozenset(ending for endings in FORMATS.values() for ending in endings) - OPTIONAL.keys()
_USUAL = (".jpg", ".JPEG", ".jpeg", ".png", ".JPG", ".PNG", ".tif", ".bmp", ".gif", ".ppm")
# Of images too, in formats that convrun does not read.
OTHERS = frozenset(
    ".heic .heif .hif .jxl .svg .svgz .psd .psb .xcf .ico .icns .cur .tga .eps .pcx .exr .hdr .dds .sgi .jxr .wdp .bpg "
    ".flif .raw .dng .cr2 .cr3 .crw .nef .arw .orf .rw2 .raf .pef .srw .dcm .dicom .nii .fits .fit .mrc .svs .ndpi "
    ".czi .lif .nd2 .emf .wmf .qoi".split()
)
_FIRST_BYTES = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n"),
    ("GIF", rb"GIF8[79]a"),
    ("WEBP", rb"RIFF....WEBP"),
    ("TIFF", rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
    ("BMP", rb"BM.{4}\0{4}"),
    ("PPM", rb"P[1-6][ \t\r\n][ \t\r\n]*[0-9#]"),
    ("JPEG2000", rb"\0{3}\x0cjP  |\xff\x4f\xff\x51"),
    ("AVIF", rb".{4}ftypavi[fs]"),
    ("HEIC", rb".{4}ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)"),
    ("JPEG XL", rb"\xff\x0a|\0{3}\x0cJXL "),
    ("PSD", rb"8BPS"),
)


def usual_endings() -> tuple[str, ...]:
    """Those of nearly all files: a scan looks at millions, and this test takes a quarter of the time of `is_read`."""
    return (*_USUAL, ".webp") if is_built_in("WEBP") else _USUAL


def is_read(name: str) -> bool:
    """Whether the ending of a file's name, in whatever case, is that of a format that this installation reads."""
    ending = name[name.rfind(".") :].lower()
    return ending in ALWAYS or (ending in OPTIONAL and is_built_in(OPTIONAL[ending]))


@functools.cache
def is_built_in(name: str) -> bool:
    """Whether the installed Pillow was built with a format."""
    from importlib.machinery import PathFinder

    pillow = PathFinder.find_spec("PIL")
    if pillow is None:
        return True  # what opens an image says that Pillow is missing
    if name == "JPEG2000":  # compiled into the one large module, or not
        from PIL import _imaging

        return hasattr(_imaging, "jpeg2k_decoder")
    module = {"WEBP": "_webp", "AVIF": "_avif"}.get(name)
    return module is None or PathFinder.find_spec(module, list(pillow.submodule_search_locations or ())) is not None


def format_of(first_bytes: bytes) -> str:
    """The format of an image by its first 16 bytes; empty if it is none that is known here."""
    return next((name for name, start in _FIRST_BYTES if re.match(start, first_bytes, re.DOTALL)), "")
