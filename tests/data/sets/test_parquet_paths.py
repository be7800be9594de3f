from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from convrun.data.sets.parquet_paths import files_of_splits
from convrun.errors import DataError

DEFAULTS = {"train": "data/train-*.parquet", "val": "data/validation-*.parquet"}


def missing(root: Path, *names: str) -> str:
    for name in (*names, ".cache/x/train-0.parquet"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    with pytest.raises(DataError) as caught:
        files_of_splits(str(root), DEFAULTS)
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "there", "train", "val"),
    [
        (("train.parquet", "test.parquet"), "test.parquet, train.parquet", "train.parquet", "test.parquet"),
        (
            ("train/0000.parquet", "train/0001.parquet", "validation/0000.parquet", "test/0000.parquet"),
            "test/*.parquet, train/*.parquet, validation/*.parquet",
            "train/*.parquet",
            "validation/*.parquet",
        ),
        (
            ("default/train-00000-of-00002-0123456789abcdef.parquet", "default/dev-00000-of-00001.parquet"),
            "default/dev-*.parquet, default/train-*.parquet",
            "default/train-*.parquet",
            "default/dev-*.parquet",
        ),
        (("food101-train.parquet", "food101-val.parquet"), "food101-train.parquet, food101-val.parquet",
         "food101-train.parquet", "food101-val.parquet"),
        (("a.parquet",), "a.parquet", "PATTERN", "PATTERN"),
        (("a/train.parquet", "b/train.parquet"), "a/train.parquet, b/train.parquet", "PATTERN", "PATTERN"),
    ],
)  # fmt: skip
def test_patterns_that_would_match_are_named(
    tmp_path: Path, names: tuple[str, ...], there: str, train: str, val: str
) -> None:
    assert missing(tmp_path, *names) == (
        f"no file in {tmp_path} matches data/train-*.parquet or data/validation-*.parquet (it has {there}); set "
        f"data.train={shlex.quote(train)} data.val={shlex.quote(val)}; without validation images, set data.val=null "
        "evaluation=null"
    )
    if train != "PATTERN":
        found = files_of_splits(str(tmp_path), {"train": train, "val": val})
        assert len(found["train"]) + len(found["val"]) <= len(names)


def test_where_val_alone_is_missing(tmp_path: Path) -> None:
    message = missing(tmp_path, "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet")
    assert re.search(r"matches data/validation-\*.parquet \(", message)
    assert message.endswith("set data.val='data/test-*.parquet'; without validation images, set data.val=null "
                            "evaluation=null")  # fmt: skip


def test_a_split_without_a_pattern_has_no_files(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").touch()
    assert files_of_splits(str(tmp_path), {"train": "t.parquet", "val": None}) == {
        "train": [f"{tmp_path}/t.parquet"],
        "val": [],
    }
