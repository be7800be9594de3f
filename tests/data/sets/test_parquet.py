from __future__ import annotations

import io
import json
import pickle
import random
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convrun.data.order import TrainingOrder
from convrun.data.pipeline import TrainingBatches
from convrun.data.sample import Images, Tolerance
from convrun.errors import DataError
from tests.data.parquet_files import CLASSES, TRAIN_ROWS, create, encoded, loaded, pa, pq, rows_of, write
from tests.data.reading import load
from tests.data.steps import each


@pytest.mark.parametrize("cached", [True, False])
def test_images_and_labels_equal_a_direct_reading_in_any_order(parquet_root: Path, cached: bool) -> None:
    images = create("train", parquet_root, cache=cached)
    expected = rows_of(*sorted(parquet_root.glob("data/train-*")))
    assert len(images) == len(expected) == sum(TRAIN_ROWS)
    assert loaded(images) == expected
    order = random.Random(0).sample(range(len(expected)), len(expected))
    assert loaded(images, order) == [expected[index] for index in order]
    image, label = load(images, 334)
    assert (image.mode, type(label), images.class_names) == ("RGB", int, CLASSES)


def test_places_name_shard_and_row(parquet_root: Path) -> None:
    images = create("train", parquet_root, cache=False)
    assert images.place(229) == f"{parquet_root}/data/train-00000-of-00002.parquet row 229"
    assert images.place(230) == f"{parquet_root}/data/train-00001-of-00002.parquet row 0"


def test_a_plain_column_of_bytes_under_other_names(tmp_path: Path) -> None:
    contents = [encoded(number) for number in range(5)]
    for split in ("train", "validation"):
        write(tmp_path / f"data/{split}-0.parquet", contents, names=("img", "fine_label"), plain=True)
    for cached in (True, False):
        images = create("train", tmp_path, image_column="img", label_column="fine_label", cache=cached)
        assert [image.tobytes() for image, _ in (load(images, index) for index in range(5))] == [
            Image.open(io.BytesIO(content)).tobytes() for content in contents
        ]
        assert images.class_names == CLASSES


def test_a_shard_without_rows_is_passed_over(parquet_root: Path) -> None:
    write(parquet_root / "data/train-00000-of-00000.parquet", [], pa.array([], pa.int64()))
    assert loaded(create("train", parquet_root)) == rows_of(*sorted(parquet_root.glob("data/train-*-of-00002.parquet")))


@pytest.mark.parametrize("cached", [True, False])
def test_the_number_of_workers_changes_nothing(parquet_root: Path, cached: bool) -> None:
    images = create("train", parquet_root, cache=cached)
    images.read(0)  # what this process has open goes into forked workers

    def batches(workers: int) -> list[Any]:
        order = TrainingOrder(seed=0, images=335, batch_size=64, micro_batch=16, end_step=7)
        with TrainingBatches(images, order, [], input_size=8, workers=workers) as feed:
            return [(b.step, b.number, b.images.numpy().tobytes(), b.labels.tolist()) for b in each(feed)]

    alone = batches(0)
    assert len(alone) == 28
    assert batches(1) == batches(2) == alone


@pytest.mark.parametrize("cached", [True, False])
def test_it_pickles_into_a_spawned_process_without_the_images(parquet_root: Path, cached: bool) -> None:
    images = create("train", parquet_root, cache=cached)
    expected = loaded(images)
    held = sum(path.stat().st_size for path in parquet_root.glob("data/train-*"))
    assert len(pickle.dumps(images)) < 4 * len(images) + 2000 < held / 10
    assert loaded(pickle.loads(pickle.dumps(images))) == expected
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        image, label = pool.submit(load, images, 333).result()
    assert (image.tobytes(), label) == expected[333]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_an_image_without_bytes_is_a_bad_image(parquet_root: Path, cached: bool, plain: bool) -> None:
    contents: list[bytes | None] = [encoded(number) for number in range(120)]
    contents[110] = None
    path = write(parquet_root / "data/row-0.parquet", contents, plain=plain)
    images = create("val", parquet_root, val="data/row-0.parquet", cache=cached)
    reason = "it has no bytes (null; a path alone is not followed)"
    cure = "save the file with the image in it or without the row, or set data.bad_images=skip"
    message = f"split val, image {path} row 110 cannot be decoded: {reason}; {cure}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load(images, 110, "val")
    found = Images(images, "val", Tolerance(skips_bad_images=True)).load(110)
    assert (found.place, found.reason) == (f"{path} row 110", reason)
    assert load(images, 111)[1] == 111 % 3


@pytest.mark.parametrize("cached", [True, False])
def test_a_null_struct_is_a_bad_image(parquet_root: Path, cached: bool) -> None:
    rows = [{"bytes": encoded(0), "path": "a"}, None, {"bytes": encoded(1), "path": "b"}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, kind), "label": [0, 1, 2]}), parquet_root / "data/row-0.parquet")
    images = create("val", parquet_root, val="data/row-0.parquet", cache=cached)
    with pytest.raises(DataError, match="row 1 cannot be decoded: it has no bytes"):
        load(images, 1, "val")
    assert load(images, 2)[1] == 2


def test_files_that_hold_paths_alone_are_refused_at_once(parquet_root: Path) -> None:
    path = write(parquet_root / "data/row-0.parquet", [None] * 5)
    message = (
        f"no image of the val split has bytes ({path}, column image.bytes), and a path alone is not followed; save the "
        "files with the images in them, set data.image_column=NAME, or read the image files themselves with "
        "data.name=image_folder"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        create("val", parquet_root, val="data/row-0.parquet")


@pytest.mark.parametrize("cached", [True, False])
def test_row_groups_without_rows_are_passed_over(parquet_root: Path, cached: bool) -> None:
    path = parquet_root / "data/row-0.parquet"
    table = pq.read_table(parquet_root / "data/validation-00000-of-00001.parquet")
    with pq.ParquetWriter(path, table.schema) as writer:
        for part in (table[:0], table[:2], table[:0], table[2:], table[:0]):
            writer.write_table(part)
    assert pq.ParquetFile(path).num_row_groups > 2
    assert loaded(create("val", parquet_root, val="data/row-0.parquet", cache=cached)) == rows_of(path)


@pytest.mark.parametrize("content", [b"", b"no image", encoded(0)[:60]])
def test_an_image_that_cannot_be_decoded(parquet_root: Path, content: bytes) -> None:
    path = write(parquet_root / "data/row-0.parquet", [encoded(0), content])
    images = create("val", parquet_root, val="data/row-0.parquet")
    with pytest.raises(DataError, match=f"^split val, image {path} row 1 cannot be decoded: "):
        load(images, 1, "val")


@pytest.mark.parametrize("cached", [True, False])
def test_memory_stays_bounded(tmp_path: Path, cached: bool) -> None:
    content = np.random.default_rng(0)
    for split, rows in (("train", 2000), ("validation", 1)):
        write(tmp_path / f"data/{split}-0.parquet", [content.bytes(10_000) for _ in range(rows)])
    # 20 MB of images, 1 MB a row group; pyarrow counts what it allocates, and not what it maps.
    script = f"""
import sys, pyarrow as pa
from convrun.data.sets.parquet_copy import with_copies
from convrun.data.sets.parquet import RowGroups
from convrun.data.sets.parquet_scan import scan_splits
shard, = scan_splits({str(tmp_path)!r}, "data/train-0.parquet", None, "image", "label")["train"].shards
source = with_copies([shard])[0] if {cached} else RowGroups(shard.path, shard.column)
assert sum(len(source.read(row)) for row in range(0, 2000, 50)) == 400_000
print(pa.default_memory_pool().max_memory())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8_000_000


@pytest.mark.parametrize("cached", [True, False])
def test_a_shard_damaged_in_the_midst(parquet_root: Path, cached: bool) -> None:
    path = parquet_root / "data/train-00001-of-00002.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)  # the images' first page; footer and labels lie behind
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path} cannot be read as parquet: .*; fetch it again$"):
        create("train", parquet_root, cache=cached).read(230)


RECIPE = """
name: tiny
input_size: 8
model: {{name: convnext, depths: [1, 1, 1, 1], dims: [4, 4, 4, 4], patch_size: 1, kernel_size: 3}}
data: {{name: parquet, root: {root}, workers: 1}}
augmentations:
  - {{name: horizontal_flip}}
optimizer: {{name: adamw, lr: 1e-3}}
scheduler: {{name: constant}}
training: {{steps: 3, batch_size: 64, micro_batch: 32}}
"""


def test_a_recipe_validates_and_trains(parquet_root: Path) -> None:
    from convrun.recipe import load_recipe
    from convrun.training.run import run

    path = parquet_root / "tiny.yaml"
    path.write_text(RECIPE.format(root=parquet_root))
    command = [sys.executable, "-m", "convrun", "validate", str(path), "--data"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train: 335 images of 3 classes (ant ... çat); first and last are 8 × 8" in done.stdout
    outcome = run(load_recipe(path), parquet_root / "out", device="cpu")
    rows = [json.loads(line) for line in (parquet_root / "out/metrics.jsonl").read_text().splitlines()]
    assert outcome.step == max(row["step"] for row in rows) == 3
