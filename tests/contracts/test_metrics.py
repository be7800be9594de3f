"""Each column of metrics.jsonl has one name, one meaning, and stands in the documentation."""

import re
from pathlib import Path

import pytest

from convrun.contracts import metrics

DOCUMENT = (Path(__file__).parents[2] / "docs" / "run_folder.md").read_text(encoding="utf-8")
ROWS = (metrics.TrainRow, metrics.EvalRow, metrics.EventRow)
TRAIN = {"step": 3, "epoch": 0.5, "loss": 1.0, "lr": 0.1, "images_per_second": 12.345, "data_wait": 0.123456}


def train_row(**more):
    nothing = {"grad_norm": None, "nonfinite_steps": 0, "overflow_steps": 0, "spike": None}
    return metrics.train_row(**TRAIN, **(nothing | more))


@pytest.mark.parametrize("row", ROWS)
def test_every_column_says_what_it_is_and_is_documented(row):
    for column in row.__annotations__:
        assert re.search(rf"^    {column}: ", row.__doc__, re.MULTILINE), column
        assert f"`{column}`" in DOCUMENT, column


def test_a_row_without_incidents_has_the_plain_columns_alone():
    assert train_row() == {"kind": "train", **TRAIN, "images_per_second": 12.35, "data_wait": 0.1235}


def test_both_kinds_of_skipped_steps_have_a_column_of_their_own():
    assert train_row(nonfinite_steps=2)["nonfinite_steps"] == 2
    assert "overflow_steps" not in train_row(nonfinite_steps=2)
    assert train_row(overflow_steps=3)["overflow_steps"] == 3
    assert "nonfinite_steps" not in train_row(overflow_steps=3)


def test_only_what_must_not_pass_unnoticed_is_told():
    assert metrics.notice(train_row()) == ""
    assert metrics.notice(train_row(spike=(7, 12.3456))) == "loss spike: 12.35 in step 7"
    event = {"kind": "event", "event": "out_of_memory", "step": 6, "epoch": 0.5, "forward_parts": 4}
    assert metrics.notice(event).startswith("step 6 ran out of memory and is retried")


def test_an_evaluation_says_how_many_images_it_lacks():
    row = {
        "kind": "eval",
        "step": 3,
        "epoch": 0.5,
        "weights": "ema",
        "top1": 1.0,
        "top5": 2.0,
        "loss": 1.0,
        "images": 8,
    }
    assert metrics.with_skipped(row, 8) == row
    assert metrics.with_skipped(row, 10)["skipped"] == 2
    assert metrics.with_skipped(train_row(), 10) == train_row()
