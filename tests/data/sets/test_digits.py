from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from convrun.components.data import DIGITS


def test_the_file_is_what_the_script_makes() -> None:
    pytest.importorskip("sklearn")
    script = runpy.run_path(str(Path(__file__).parents[2] / "make_digits.py"))
    made = script["digits_arrays"]()
    with np.load(DIGITS, allow_pickle=False) as stored:
        assert set(stored.files) == set(made)
        for key, array in made.items():
            assert stored[key].dtype == array.dtype
            assert np.array_equal(stored[key], array), key
    assert script["ASSET"] == DIGITS


def test_the_file_is_small_and_attributed() -> None:
    assert DIGITS.stat().st_size < 1_000_000
    assert "CC BY 4.0" in DIGITS.with_suffix(".md").read_text()


def test_every_class_gives_a_fifth_to_val() -> None:
    with np.load(DIGITS) as stored:
        train, val = (np.bincount(stored[f"{split}_labels"], minlength=10) for split in ("train", "val"))
        assert stored["val_images"].max() == stored["train_images"].max() == 255
    assert train.sum() + val.sum() == 1797
    assert (abs(val - (train + val) / 5) < 1).all()
