"""Parquet files of encoded images as an image set: an image by its number, from an Arrow copy or from the files.

A parquet file can only be read a row group at a time: under a shuffle each image costs the reading of the hundred
around it, four times the work of decoding it (benchmarks/parquet.py). Hence the copies (parquet_copy.py).
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from convrun.contracts.data import BadImage, GreyRange
from convrun.data.sets.parquet_copy import ArrowCopy, with_copies
from convrun.data.sets.parquet_scan import Split, only_column, pq, readable

CURE = "save the file with the image in it or without the row"


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


class ParquetImages:
    """One split: some files, one after the other; what it holds in memory is the labels."""

    def __init__(
        self, split: Split, *, cache: bool, grey_range: GreyRange | None = None, notes: Sequence[str] = ()
    ) -> None:
        self._class_names, self.notes, self.grey_range = split.class_names, (*split.notes, *notes), grey_range
        shards = split.shards
        self._paths = tuple(shard.path for shard in shards)
        self._starts = (0, *accumulate(len(shard.labels) for shard in shards))
        self._labels = np.concatenate([np.zeros(0, np.int32), *(shard.labels for shard in shards)])
        self._sources: Sequence[ArrowCopy | RowGroups] = (
            with_copies(shards) if cache else [RowGroups(shard.path, shard.column) for shard in shards]
        )

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def class_names(self) -> Sequence[str]:
        """The names in the files' metadata, or the labels as text."""
        return self._class_names

    def read(self, index: int) -> tuple[bytes, int]:
        """The encoded image and its label."""
        shard, row = self._position(index)
        content = self._sources[shard].read(row)
        if content is None:
            raise BadImage("it has no bytes (null; a path alone is not followed)", cure=CURE)
        return content, int(self._labels[index])

    def place(self, index: int) -> str:
        """`ROOT/data/train-00000-of-00013.parquet row 17`."""
        shard, row = self._position(index)
        return f"{self._paths[shard]} row {row}"

    def _position(self, index: int) -> tuple[int, int]:
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]
