from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeTree = Callable[..., Path]


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Writes tiny PNG files at the paths given; each file has a colour of its own."""

    def make(*names: str) -> Path:
        for number, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(path, format="PNG")
        return tmp_path

    return make


@pytest.fixture(autouse=True)
def copies_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Arrow copies of parquet files go: never the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CONVRUN_CACHE", str(folder))
    return folder / "parquet"


@pytest.fixture
def parquet_root(tmp_path: Path) -> Path:
    """A data set of 335 training images in two parquet files, 4 for validation, 6 for testing."""
    from tests.data.parquet_files import write_data_set  # imports pyarrow, which the other tests here do without

    return write_data_set(tmp_path)
