"""Parquet files for the tests of what reads them, and what the files hold, read without a line of convrun's."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convrun.contracts.data import DataFacts
from convrun.registry import registry
from tests.data.reading import load

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CLASSES = ("ant", "bee", "çat")
COLUMNS = "image", "label"
TRAIN_ROWS = (230, 105)  # row groups of 100, 100, 30 and of 100, 5


def encoded(number: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), kind)
    return file.getvalue()


def features(classes: Sequence[str] | None, label: str = "label") -> dict[bytes, bytes]:
    """What the library `datasets` writes."""
    kind = {"names": classes, "_type": "ClassLabel"} if classes else {"dtype": "int64", "_type": "Value"}
    text = json.dumps({"info": {"features": {"image": {"_type": "Image"}, label: kind}}})
    return {b"huggingface": text.encode()}


def write(
    path: Path,
    contents: Sequence[bytes | None],
    labels: Any = None,
    *,
    classes: Sequence[str] | None = CLASSES,
    names: tuple[str, str] = COLUMNS,
    plain: bool = False,
) -> Path:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": content, "path": f"{number}.png"} for number, content in enumerate(contents)]
    images = pa.array(contents, pa.large_binary()) if plain else pa.array(rows, struct)
    column = pa.array([number % 3 for number in range(len(contents))] if labels is None else labels)
    table = pa.table(dict(zip(names, (images, column), strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(features(classes, names[1])), path, row_group_size=100)
    return path


def write_data_set(root: Path) -> Path:
    """335 training images in two shards, 4 for validation, 6 for testing."""
    start = 0
    for shard, rows in enumerate(TRAIN_ROWS):
        contents = [encoded(number, "JPEG" if number % 5 == 0 else "PNG") for number in range(start, start + rows)]
        write(root / f"data/train-{shard:05}-of-00002.parquet", contents)
        start += rows
    write(root / "data/validation-00000-of-00001.parquet", [encoded(1000 + number) for number in range(4)])
    write(root / "data/test-00000-of-00001.parquet", [encoded(2000 + number) for number in range(6)])
    return root


def create(split: str, root: Path, **keys: Any) -> Any:
    component = registry.find("data", "parquet")
    return component.create(split, **component.keys.check({"root": str(root), **keys}))


def facts(root: Path | str, name: str = "facts", **keys: Any) -> DataFacts:
    component = registry.find("data", "parquet")
    own = {key.name: keys.get(key.name, key.default) for key in component.own_keys}
    found = component.meta[name](**{**own, "root": str(root)})
    assert isinstance(found, DataFacts)
    return found


def rows_of(*paths: Path) -> list[tuple[bytes, int]]:
    """Read without a line of convrun's."""
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    return [(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").tobytes(), row["label"]) for row in rows]


def loaded(images: Any, order: Sequence[int] | None = None) -> list[tuple[bytes, int]]:
    pairs = [load(images, index) for index in (range(len(images)) if order is None else order)]
    return [(image.tobytes(), label) for image, label in pairs]
