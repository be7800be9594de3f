"""What fetching an image from parquet costs under a shuffle, beside decoding it: `python benchmarks/parquet.py`.

Makes a data set as the Hugging Face hub has them (two shards, row groups of 100, JPEGs of about 100 KB) in a temporary
folder and fetches images in random order, in one process, everything in the page cache: from the row groups
(data.cache=false), from the Arrow copy (data.cache=true), and from single files, as image_folder does.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from convrun.data.decode import decode
from convrun.data.sets.parquet import RowGroups
from convrun.data.sets.parquet_copy import with_copies
from convrun.data.sets.parquet_scan import scan_splits

ROW_GROUP = 100


def make_jpegs(count: int) -> list[bytes]:
    """500 × 375 pixels, the usual size in ImageNet, with noise enough for about 100 KB."""
    draws = np.random.default_rng(0)

    def jpeg() -> bytes:
        coarse = Image.fromarray(draws.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375))
        pixels = np.clip(np.asarray(coarse) + draws.normal(0, 16, (375, 500, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", quality=90)
        return file.getvalue()

    return [jpeg() for _ in range(count)]


def write(root: Path, images: Sequence[bytes]) -> None:
    """The same images as two shards, and as files."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    half = len(images) // 2
    for shard, part in enumerate((images[:half], images[half:])):
        rows = pa.array([{"bytes": content, "path": f"{number}.jpg"} for number, content in enumerate(part)], kind)
        table = pa.table({"image": rows, "label": pa.array([number % 10 for number in range(len(part))])})
        pq.write_table(table, root / f"train-{shard:05}-of-00002.parquet", row_group_size=ROW_GROUP)
    for number, content in enumerate(images):
        (root / f"{number}.jpg").write_bytes(content)


def milliseconds(fetch: Callable[[int], bytes | None], order: Sequence[int], *, decoded: bool) -> float:
    """The mean over the images."""
    started = time.perf_counter()
    for index in order:
        content = fetch(index)
        assert content is not None
        if decoded:
            decode(content)
    return 1e3 * (time.perf_counter() - started) / len(order)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--fetches", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5, help="the best of these is shown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="convrun-parquet-") as name:
        root = Path(name)
        os.environ["CONVRUN_CACHE"] = f"{root}/cache"
        images = make_jpegs(options.images)
        write(root, images)
        shards = scan_splits(name, "train-*.parquet", None, "image", "label")["train"].shards
        started = time.perf_counter()
        copies = with_copies(shards)
        size = sum(map(len, images))
        print(f"{len(images)} JPEGs of {size / len(images) / 1e3:.0f} KB on average")
        print(f"the copy takes {time.perf_counter() - started:.2f} s, once, and {size / 1e6:.0f} MB")
        half = len(images) // 2
        groups = [RowGroups(shard.path, shard.column) for shard in shards]
        draws = random.Random(0)
        ways: dict[str, Callable[[int], bytes | None]] = {
            "memory (decoding alone)": images.__getitem__,
            "row groups (cache: false)": lambda index: groups[index // half].read(index % half),
            "Arrow copy (cache: true)": lambda index: copies[index // half].read(index % half),
            "single files": lambda index: (root / f"{index}.jpg").read_bytes(),
        }
        # In turns, and the best of them: what else the machine does then hits no way more than another.
        times: dict[tuple[str, bool], list[float]] = {}
        for _ in range(options.repeats):
            for way, fetch in ways.items():
                for decoded in (False, True):
                    order = [draws.randrange(len(images)) for _ in range(options.fetches)]
                    times.setdefault((way, decoded), []).append(milliseconds(fetch, order, decoded=decoded))
        print(f"{'':<28}{'fetch':>10}{'fetch + decode':>18}{'images/s':>12}")
        for way in ways:
            alone, both = (min(times[way, decoded]) for decoded in (False, True))
            print(f"{way:<28}{alone:>7.3f} ms{both:>15.3f} ms{1e3 / both:>12.0f}")


if __name__ == "__main__":
    main()
