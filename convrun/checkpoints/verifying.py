"""Is a file a zip archive as torch writes them, with every check sum right? torch writes the sums, but checks none."""

from __future__ import annotations

import zipfile
from pathlib import Path


def verify(path: Path) -> None:
    """Reads the whole file once.

    Raises:
        BadZipFile: a byte has changed or is missing, or no program of ours wrote it.
        Exception: nearly anything, where a directory of the archive is damaged.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        raise zipfile.BadZipFile("it is empty")
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
        _refuse_what_grows(members, size)
        damaged = file.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"wrong check sum of {damaged}")


def _refuse_what_grows(members: list[zipfile.ZipInfo], size: int) -> None:
    """An uncompressed archive is what torch writes: one archive that holds more than its own size is a bomb."""
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise zipfile.BadZipFile("it is compressed")
    if sum(member.file_size for member in members) > size:
        raise zipfile.BadZipFile("it claims to hold more than its size")
    if len({member.filename for member in members}) < len(members):
        raise zipfile.BadZipFile("it holds two records of one name")
