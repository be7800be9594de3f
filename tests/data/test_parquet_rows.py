from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convrun.errors import DataError
from tests.data.parquet_files import create, pa, write


@pytest.mark.parametrize("cached", [True, False])
def test_memory_stays_bounded(tmp_path: Path, cached: bool) -> None:
    content = np.random.default_rng(0)
    for split, rows in (("train", 2000), ("validation", 1)):
        write(tmp_path / f"data/{split}-0.parquet", [content.bytes(10_000) for _ in range(rows)])
    # 20 MB of images, 1 MB a row group; pyarrow counts what it allocates, and not what it maps.
    script = f"""
import sys, pyarrow as pa
from convrun.data.parquet_copy import with_copies
from convrun.data.parquet_rows import RowGroups
from convrun.data.parquet_scan import scan_splits
shard, = scan_splits({str(tmp_path)!r}, {{"train": "data/train-0.parquet"}}, "image", "label")[1]["train"]
source = with_copies([shard])[0] if {cached} else RowGroups(shard.path, shard.column)
assert sum(len(source.read(row)) for row in range(0, 2000, 50)) == 400_000
print(pa.default_memory_pool().max_memory())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8_000_000


def test_damaged_copies_are_named(parquet_root: Path, copies_folder: Path) -> None:
    create("val", parquet_root)
    (copy,) = copies_folder.glob("*.arrow")
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-20])
    images = create("val", parquet_root)
    with pytest.raises(DataError, match=rf"the copy {copy} cannot be read: .*; delete it, and the next start makes it"):
        images.load(0)
    with pa.OSFile(str(copy), "wb") as file, pa.ipc.new_file(file, pa.schema([("image", pa.large_binary())])) as writer:
        writer.write_batch(pa.record_batch([pa.array([b"x"], pa.large_binary())], ["image"]))
    with pytest.raises(DataError, match="it holds 1 of 4 images; delete it"):
        images.load(0)
    copy.unlink()
    with pytest.raises(DataError, match="No such file or directory; delete it, and the next start makes it"):
        images.load(0)


@pytest.mark.parametrize("cached", [True, False])
def test_a_shard_damaged_in_the_midst(parquet_root: Path, cached: bool) -> None:
    path = parquet_root / "data/train-00001-of-00002.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)  # the images' first page; footer and labels lie behind
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path} cannot be read as parquet: .*; fetch it again$"):
        create("train", parquet_root, cache=cached).load(230)
