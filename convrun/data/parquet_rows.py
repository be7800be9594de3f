"""The bytes of one image by its row: from a memory-mapped Arrow copy, or from a row group of the parquet file itself.

A parquet file can only be read a row group at a time: under a shuffle each image costs the reading of the hundred
around it, four times the work of decoding it (benchmarks/parquet.py). In an Arrow file an image is a slice of the
mapped file.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from itertools import accumulate
from typing import Any

from convrun.data.parquet_library import first_line, pa, pq, readable
from convrun.errors import DataError


class ArrowCopy:
    """The copy of one file; it is mapped by each process that reads it, and pickles as its path."""

    def __init__(self, path: str, rows: int) -> None:
        self._path, self._rows = path, rows
        self._parts: Any = None
        self._starts: tuple[int, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": None}  # pyarrow would pickle what the map holds

    def read(self, row: int) -> bytes:
        """The encoded image."""
        if self._parts is None:
            self._open()
        part = bisect_right(self._starts, row) - 1
        content: bytes = self._parts[part][row - self._starts[part]].as_py()
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


class RowGroups:
    """The file itself: no copy, and a whole row group is read where the last one does not serve."""

    def __init__(self, path: str, column: str) -> None:
        self._path, self._column = path, column
        self._file: Any = None
        self._starts: tuple[int, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def read(self, row: int) -> bytes | None:
        """The encoded image."""
        if self._file is None:
            with readable(self._path):
                self._file = pq.ParquetFile(self._path)
            groups = range(self._file.num_row_groups)
            self._starts = (0, *accumulate(self._file.metadata.row_group(number).num_rows for number in groups))
        group = bisect_right(self._starts, row) - 1
        content: bytes | None = _row_group(self, group)[row - self._starts[group]].as_py()
        return content

    def read_group(self, number: int) -> Any:
        """All images of a row group."""
        with readable(self._path):
            return only_column(self._file.read_row_group(number, columns=[self._column], use_threads=False))


@functools.lru_cache(maxsize=2)  # of all files together: a group takes about 10 MB, in each loader worker
def _row_group(source: RowGroups, number: int) -> Any:
    return source.read_group(number)


def only_column(table: Any) -> Any:
    """The only column of a table; that of a struct's only field if it is one."""
    column = table.column(0)
    return column.flatten()[0] if pa.types.is_struct(column.type) else column


def no_bytes(path: str, row: int) -> DataError:
    """For a row that names an image file instead of holding it."""
    return DataError(
        f"{path} row {row} has no image bytes (a path alone is not followed); save the files with the images in them, "
        "or read the image files themselves with data.name=image_folder"
    )
