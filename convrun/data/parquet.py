"""Parquet files of encoded images as an image set: an image by its number, from an Arrow copy or from the files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from PIL import Image

from convrun.data.image_set import decode
from convrun.data.parquet_copy import with_copies
from convrun.data.parquet_rows import ArrowCopy, RowGroups, no_bytes
from convrun.data.parquet_scan import Shard


class ParquetImages:
    """One split: some files, one after the other; what it holds in memory is the labels."""

    def __init__(self, shards: Sequence[Shard], split: str, class_names: Sequence[str], *, cache: bool) -> None:
        self._split, self._class_names = split, tuple(class_names)
        self._paths = tuple(shard.path for shard in shards)
        self._starts = (0, *accumulate(len(shard.labels) for shard in shards))
        self._labels = np.concatenate([shard.labels for shard in shards])
        self._sources: Sequence[ArrowCopy | RowGroups] = (
            with_copies(shards) if cache else [RowGroups(shard.path, shard.column) for shard in shards]
        )

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def class_names(self) -> Sequence[str]:
        """The names in the files' metadata, or the labels as text."""
        return self._class_names

    def load(self, index: int) -> tuple[Image.Image, int]:
        """The image, decoded as RGB, and its label."""
        shard, row = self._position(index)
        content = self._sources[shard].read(row)
        if content is None:
            raise no_bytes(self._paths[shard], row)
        return decode(content, split=self._split, place=self.place(index)), int(self._labels[index])

    def place(self, index: int) -> str:
        """`ROOT/data/train-00000-of-00013.parquet row 17`."""
        shard, row = self._position(index)
        return f"{self._paths[shard]} row {row}"

    def _position(self, index: int) -> tuple[int, int]:
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]
