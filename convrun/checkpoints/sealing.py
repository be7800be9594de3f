"""The seal of a checkpoint: a check sum of all its bytes, in the comment that ends a zip archive.

torch writes an archive with a check sum for each record, but does not verify them, and the bytes between the records
have none: names, dates, padding, the directory.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from convrun.errors import CheckpointError

MARK = b"convrun crc32 "
COMMENT_BYTES = len(MARK) + 8
# The last field of an archive's end record, just before the comment.
LENGTH = COMMENT_BYTES.to_bytes(2, "little")
END_RECORD, END_RECORD_BYTES = b"PK\5\6", 22
CHUNK_BYTES = 1 << 20


class SealedFile(io.FileIO):
    """A new file for `torch.save`, which writes it from beginning to end; call `seal` afterwards.

    Without a buffer, so that a loader worker that is forked meanwhile inherits nothing that it could write. The file
    must not exist, so that nothing is written through a link that another user has planted.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "xb")
        self._sum = 0

    def write(self, content: Any, /) -> int:
        """Writes all of it: the system accepts at most 2 GiB at a time, and torch ignores how much was written."""
        self._sum = zlib.crc32(content, self._sum)
        return self._write_all(content)

    def seal(self) -> None:
        """Adds the comment, and waits until everything is on the disk."""
        self.seek(-len(LENGTH), os.SEEK_END)
        self._write_all(LENGTH + _comment(self._sum))
        os.fsync(self.fileno())

    def _write_all(self, content: Any) -> int:
        left = memoryview(content).cast("B")
        size = len(left)
        while left:
            left = left[self._take(left) :]
        return size

    def _take(self, content: memoryview) -> int:
        return super().write(content)


def _comment(check_sum: int) -> bytes:
    return MARK + b"%08x" % check_sum


def verify(path: Path) -> None:
    """Reads the whole file once.

    Raises:
        BadZipFile: a byte has changed or is missing.
        CheckpointError: an archive of another program.
        Exception: almost anything, if something other than an archive was sealed.
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        end = _read_end(file, size, path)
        if not end.endswith(LENGTH + _comment(_sum_of(file, size - COMMENT_BYTES - len(LENGTH)))):
            raise zipfile.BadZipFile("its check sum is wrong")
    with zipfile.ZipFile(path) as archive:
        _refuse_what_grows(archive.infolist(), size)


def _read_end(file: io.FileIO, size: int, path: Path) -> bytes:
    """The last bytes, among them a comment that looks like a seal."""
    if size == 0:
        raise zipfile.BadZipFile("it is empty")
    file.seek(max(0, size - END_RECORD_BYTES - COMMENT_BYTES))
    end = file.read(END_RECORD_BYTES + COMMENT_BYTES)
    record = end[-END_RECORD_BYTES:]
    if record.startswith(END_RECORD) and record.endswith(b"\0\0"):
        raise CheckpointError(
            f"{path} is not a checkpoint of a convrun run: it has no check sum at its end; remove it to go on from the "
            "one before"
        )
    if MARK not in end:
        raise zipfile.BadZipFile("its end is missing or damaged")
    return end


def _sum_of(file: io.FileIO, size: int) -> int:
    """The check sum of the first bytes, as they were before the comment's length was set."""
    file.seek(0)
    found, buffer, left = 0, memoryview(bytearray(CHUNK_BYTES)), size
    while left > 0:
        count = file.readinto(buffer[: min(left, CHUNK_BYTES)])
        if not count:
            raise zipfile.BadZipFile("it became shorter while it was read")
        found, left = zlib.crc32(buffer[:count], found), left - count
    return zlib.crc32(bytes(len(LENGTH)), found)


def _refuse_what_grows(members: list[zipfile.ZipInfo], size: int) -> None:
    """An uncompressed archive is what torch writes: one that holds more than its own size is a bomb."""
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise zipfile.BadZipFile("it is compressed")
    if sum(member.file_size for member in members) > size:
        raise zipfile.BadZipFile("it claims to hold more than its size")
    if len({member.filename for member in members}) < len(members):
        raise zipfile.BadZipFile("it holds two records of one name")
