"""Arrow copies of parquet files' images, in which an image is a slice of a memory-mapped file.

They are made once: whole or not at all, by one process while the others wait. They lie in the cache folder, take the
room of the encoded images, and may be deleted at any time: the next run makes them again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import socket
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from convrun.data.sets.parquet_scan import Shard, first_line, only_column, pa, pq, readable
from convrun.errors import DataError
from convrun.files.cache_folder import cache_folder

STALE_SECONDS = 3600.0
log = logging.getLogger(__name__)


class ArrowCopy:
    """The copy of one file; it is mapped by each process that reads it, and pickles as its path."""

    def __init__(self, path: str, rows: int) -> None:
        self._path, self._rows = path, rows
        self._parts: Any = None
        self._starts: tuple[int, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": None}  # pyarrow would pickle what the map holds

    def read(self, row: int) -> bytes | None:
        """The encoded image; None where the file has none."""
        if self._parts is None:
            self._open()
        part = bisect_right(self._starts, row) - 1
        content: bytes | None = self._parts[part][row - self._starts[part]].as_py()
        return content

    def _open(self) -> None:
        try:
            options = pa.ipc.IpcReadOptions(use_threads=False)
            parts = pa.ipc.open_file(pa.memory_map(self._path), options=options).read_all().column(0).chunks
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(first_line(error)) from None
        starts = (0, *accumulate(len(part) for part in parts))
        if starts[-1] != self._rows:
            raise self._damaged(f"it holds {starts[-1]} of {self._rows} images")
        self._parts, self._starts = parts, starts

    def _damaged(self, what: str) -> DataError:
        return DataError(f"the copy {self._path} cannot be read: {what}; delete it, and the next start makes it again")


def with_copies(shards: Sequence[Shard]) -> list[ArrowCopy]:
    """The copies of some files; those that are missing are made, by one process while the others wait.

    Raises:
        DataError: there is no room for them.
        UsageError: the cache folder cannot be found.
    """
    folder = cache_folder() / "parquet"
    copies = [folder / _copy_name(shard) for shard in shards]
    if not all(copy.exists() for copy in copies):
        with _one_at_a_time(folder):
            _make(folder, [pair for pair in zip(shards, copies, strict=True) if not pair[1].exists()])
    return [ArrowCopy(str(copy), len(shard.labels)) for shard, copy in zip(shards, copies, strict=True)]


def _copy_name(shard: Shard) -> str:
    identity = repr((str(Path(shard.path).resolve()), shard.version, shard.column))
    return f"{Path(shard.path).stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.arrow"


def _make(folder: Path, missing: Sequence[tuple[Shard, Path]]) -> None:
    if not missing:
        return
    needed = sum(shard.image_bytes for shard, _ in missing)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _no_copy(folder, f"they take {_size(needed)}, and the disk has {_size(free)} free")
    parent = Path(missing[0][0].path).parent
    # A warning, so that it is seen without any logging set up: it fills a disk, and it takes minutes.
    log.warning("copying %d parquet files of %s to %s, once (%s)", len(missing), parent, folder, _size(needed))
    for shard, copy in missing:
        _copy(shard, copy)


def _copy(shard: Shard, copy: Path) -> None:
    """The images of a file as an Arrow file, whole or not at all."""
    try:
        draft = copy.with_name(f".{copy.name}.{socket.gethostname()}.{os.getpid()}.draft")
        try:
            with draft.open("wb") as file:
                schema = pa.schema([("image", pa.large_binary())])
                with pa.ipc.new_file(file, schema) as writer:
                    for images in _pieces(shard):
                        writer.write_batch(pa.record_batch([images.cast(pa.large_binary())], schema))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(copy)
        finally:
            draft.unlink(missing_ok=True)
    except (pa.ArrowException, OSError) as error:
        raise _no_copy(copy.parent, first_line(error)) from None


def _pieces(shard: Shard) -> Iterator[Any]:
    with readable(shard.path):
        file = pq.ParquetFile(shard.path)
        # One row group after the other: pyarrow's iter_batches would hold all that it has passed until the file ends.
        for number in range(file.num_row_groups):
            yield from only_column(file.read_row_group(number, columns=[shard.column], use_threads=False)).chunks


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        for draft in folder.glob(".*.draft"):  # of a process that was killed; a lock need not reach other machines
            with contextlib.suppress(FileNotFoundError):
                if draft.stat().st_mtime < time.time() - STALE_SECONDS:
                    draft.unlink()
    except OSError as error:
        raise _no_copy(folder, first_line(error)) from None
    with lock:
        yield


def _no_copy(folder: Path, why: str) -> DataError:
    return DataError(
        f"copies of the parquet files cannot be written to {folder}: {why}; free some room, name a folder on another "
        "disk in the environment variable CONVRUN_CACHE, or set data.cache=false to read without copies, slowly"
    )


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
