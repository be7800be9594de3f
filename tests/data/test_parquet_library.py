from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from convrun.errors import DataError
from tests.data.parquet_files import create, facts


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
