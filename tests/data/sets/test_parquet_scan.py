from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from convrun.contracts.data import DataFacts
from convrun.errors import DataError, KeyProblem

pytest.importorskip("pyarrow")

from tests.data.parquet_files import create, encoded, facts, loaded, pa, rows_of, write


def test_val_may_be_the_test_split(parquet_root: Path) -> None:
    images = create("val", parquet_root, val="data/test-*.parquet")
    assert loaded(images) == rows_of(parquet_root / "data/test-00000-of-00001.parquet")


def test_files_come_in_the_order_of_the_list_each_once(parquet_root: Path) -> None:
    names = ["data/train-00001-of-00002.parquet", "data/train-*.parquet"]
    images = create("train", parquet_root, train=names)
    assert loaded(images) == rows_of(*sorted(parquet_root.glob("data/train-*"), reverse=True))


@pytest.mark.parametrize("classes", [None, []])
def test_without_names_the_labels_count_the_classes(tmp_path: Path, classes: list[str] | None) -> None:
    for split in ("train", "validation"):
        write(tmp_path / f"data/{split}-0.parquet", [encoded(0)] * 4, [0, 1, 2, 3], classes=classes)
    assert create("val", tmp_path).class_names == ("0", "1", "2", "3")
    assert facts(tmp_path) == DataFacts(4, 4, 4)
    assert facts(tmp_path, num_classes=9) == DataFacts(9, 4, 4)  # the labels cannot show that there are not
    with pytest.raises(DataError, match=r"num_classes is 3, found 4; .* set data.num_classes=4 data.train_images=4 "):
        create("train", tmp_path, num_classes=3)


def test_facts(parquet_root: Path) -> None:
    assert facts(parquet_root) == facts(parquet_root, "measure") == DataFacts(3, 335, 4)
    numbers = {"num_classes": 9, "train_images": 8, "val_images": 7}
    assert facts("/nowhere", **numbers) == DataFacts(9, 8, 7)
    message = (
        f"{parquet_root} is not what the recipe declares: num_classes is 9, found 3; train_images is 8, found 335; "
        "val_images is 7, found 4; check the data, or set data.num_classes=3 data.train_images=335 data.val_images=4"
    )
    for look in (lambda: create("val", parquet_root, **numbers), lambda: facts(parquet_root, "measure", **numbers)):
        with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
            look()
    with pytest.raises(KeyProblem, match=r"is empty; set data.root=FOLDER"):
        facts(" ")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"root": "{root}/gone"}, r"the folder {root}/gone does not exist; set data.root=FOLDER"),
        ({"root": "{root}/data"}, r"no file in {root}/data matches data/train-\*.parquet .*'train-\*.parquet'.*; "),
        (
            {"val": "x/*.parquet"},
            r"matches x/\*.parquet \(it has .*\); set data.val='data/validation-\*.parquet'; w",
        ),
        ({"train": []}, r"data.train is an empty list; set data.train=PATTERN"),
        (
            {"image_column": "imge"},
            r"train-0.* has no column imge \(it has image: .*, label: int64\); set data.image_column=image",
        ),
        ({"label_column": "coarse"}, r"has no column coarse \(it has image: .*\); set data.label_column=label"),
        (
            {"image_column": "label"},
            r"the column label is int64, neither bytes nor a struct with bytes; set data.image",
        ),
        ({"label_column": "image"}, r"the column image is struct<.*>, not one label an image .*label_column=label"),
    ],
)
def test_keys_that_fit_no_file(parquet_root: Path, keys: dict[str, Any], message: str) -> None:
    keys = {key: value.format(root=parquet_root) if isinstance(value, str) else value for key, value in keys.items()}
    with pytest.raises(DataError, match=message.format(root=parquet_root)):
        create("train", Path(keys.pop("root", parquet_root)), **keys)


def test_a_root_without_parquet_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"matches data/train-.* \(it has no .parquet file\); set data.root=FOLDER"):
        facts(tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, None, 2, 0], "row-0.parquet row 1 has no label .null in the column label."),
        ([0, 1, 3, 0], r"row-0.parquet row 2 has label 3, not one in 0\.\.2; the files name no more classes"),
        ([0, 1, 2, -1], r"row 3 has label -1, not one in 0\.\."),
        ([0, 10**9, 2, 1], r"row 1 has label 1000000000, not one in 0\.\.999999; labels are class numbers"),
        (pa.array([2**64 - 1, 0, 0, 0], pa.uint64()), "row 0 has label -1"),
        ([0.0, 1.5, 2.0, 0.0], "row 1 has label 1.5, no class number; save whole numbers from 0, or set data.label_"),
    ],
)
def test_labels_that_are_wrong(parquet_root: Path, labels: Any, message: str) -> None:
    write(parquet_root / "data/row-0.parquet", [encoded(number) for number in range(4)], labels)
    with pytest.raises(DataError, match=message):
        facts(parquet_root, val="data/row-0.parquet")


@pytest.mark.parametrize(
    ("classes", "difference"),
    [(("ant", "bee"), "3 and 2"), (("ant", "wasp", "çat"), "label 1 is 'bee' in one, 'wasp' in the other")],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_class_names_that_differ(parquet_root: Path, split: str, classes: Sequence[str], difference: str) -> None:
    write(parquet_root / "data/row-0.parquet", [encoded(0)], classes=classes)
    first = parquet_root / "data/train-00000-of-00002.parquet"
    message = rf"^{first} and .*row-0.parquet name other classes \({difference}\), .*; set data.train and data.val"
    patterns = {"train": ("data/train-*.parquet", "data/row-0.parquet")} if split == "train" else {"val": "data/row-*"}
    with pytest.raises(DataError, match=message):
        facts(parquet_root, **patterns)


def test_a_split_without_rows(parquet_root: Path) -> None:
    write(parquet_root / "data/row-0.parquet", [], pa.array([], pa.int64()))
    with pytest.raises(DataError, match=r"the val split is empty: no row in .*row-0.parquet; set data.val=PATTERN"):
        create("train", parquet_root, val="data/row-0.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "row-0.parquet cannot be read as parquet: .*; fetch it again"),
        (b"something else entirely", "cannot be read as parquet: .*; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git's pointer to the file .git lfs pull"),
    ],
)
def test_files_that_are_no_parquet(parquet_root: Path, content: bytes, message: str) -> None:
    (parquet_root / "data/row-0.parquet").write_bytes(content)
    with pytest.raises(DataError, match=message):
        facts(parquet_root, train="data/row-0.parquet")


def test_a_truncated_shard(parquet_root: Path) -> None:
    path = parquet_root / "data/train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=f"^{path} cannot be read as parquet: .*magic bytes.*; fetch it again$"):
        create("val", parquet_root)


def test_without_pyarrow_the_cure_is_the_extra(parquet_root: Path) -> None:
    script = f"""
import sys
sys.modules["pyarrow"] = None
from convrun.registry import registry
component = registry.find("data", "parquet")
component.create("train", **component.keys.check({{"root": {str(parquet_root)!r}}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "DataError: parquet files need pyarrow" in done.stderr
    assert done.stderr.strip().endswith("pip install 'convrun[parquet]'")
