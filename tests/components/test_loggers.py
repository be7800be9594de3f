import csv
import json
import os

import pytest

from convrun.components.loggers import CsvTables, JsonLines, TensorBoard
from convrun.contracts.logger import RunInfo
from convrun.display.screen import Screen
from convrun.errors import RunFolderError


def run_info(folder, start_step=0):
    return RunInfo("tiny", folder, {}, total_steps=100, steps_per_epoch=10, start_step=start_step, screen=Screen())


def train_row(step, **more):
    return {"kind": "train", "step": step, "epoch": step / 10, "loss": 1 / step, "lr": 0.1, **more}


def eval_row(step, weights="model"):
    return {"kind": "eval", "step": step, "epoch": 1, "weights": weights, "top1": 50.0, "top5": 80.0, "images": 10}


def log(logger, *rows):
    for row in rows:
        logger.log(row)
    logger.close()


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def table(folder, kind):
    with (folder / f"{kind}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_come_back_as_they_went_in(tmp_path):
    rows = [train_row(1), train_row(2, grad_norm=0.5), eval_row(2, "ema")]
    log(JsonLines(run_info(tmp_path)), *rows)
    assert lines(tmp_path) == rows


def test_each_row_is_on_disk_at_once(tmp_path):
    json_lines, tables = JsonLines(run_info(tmp_path)), CsvTables(run_info(tmp_path))
    for logger in (json_lines, tables):
        logger.log(train_row(1))
    assert len(lines(tmp_path)) == len(table(tmp_path, "train")) == 1
    json_lines.close()
    tables.close()


def test_resuming_drops_later_rows_and_a_torn_line(tmp_path):
    log(JsonLines(run_info(tmp_path)), *[train_row(step) for step in (1, 2, 3, 4)], eval_row(2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 2')
    log(JsonLines(run_info(tmp_path, start_step=2)), train_row(3))
    assert [(row["kind"], row["step"]) for row in lines(tmp_path)] == [
        ("train", 1),
        ("train", 2),
        ("eval", 2),
        ("train", 3),
    ]


def test_a_line_torn_just_before_its_end_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}')
    log(JsonLines(run_info(tmp_path, start_step=5)), train_row(6))
    assert [row["step"] for row in lines(tmp_path)] == [1, 6]


def test_starting_over_begins_with_an_empty_file(tmp_path):
    for _ in range(2):
        log(JsonLines(run_info(tmp_path)), train_row(1))
        log(CsvTables(run_info(tmp_path)), train_row(1))
    assert len(lines(tmp_path)) == len(table(tmp_path, "train")) == 1


def test_nothing_to_drop_leaves_the_file_alone(tmp_path):
    log(JsonLines(run_info(tmp_path)), train_row(1))
    before = (tmp_path / "metrics.jsonl").stat().st_ino
    JsonLines(run_info(tmp_path, start_step=1)).close()
    assert (tmp_path / "metrics.jsonl").stat().st_ino == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl"]


def test_a_loss_that_is_no_number_is_null(tmp_path):
    log(JsonLines(run_info(tmp_path)), train_row(1, grad_norm=float("nan")), train_row(2, grad_norm=float("inf")))
    assert [row["grad_norm"] for row in lines(tmp_path)] == [None, None]


def test_csv_has_a_table_a_kind(tmp_path):
    log(CsvTables(run_info(tmp_path)), train_row(1), eval_row(1), eval_row(1, "ema"))
    assert [row["loss"] for row in table(tmp_path, "train")] == ["1.0"]
    assert [(row["weights"], row["top1"]) for row in table(tmp_path, "eval")] == [("model", "50.0"), ("ema", "50.0")]


def test_csv_takes_a_new_column_late(tmp_path):
    log(CsvTables(run_info(tmp_path)), train_row(1), train_row(2, grad_norm=0.5), train_row(3))
    assert [row["grad_norm"] for row in table(tmp_path, "train")] == ["", "0.5", ""]
    assert [row["step"] for row in table(tmp_path, "train")] == ["1", "2", "3"]


def test_csv_resumes_without_later_rows_or_a_torn_line(tmp_path):
    log(CsvTables(run_info(tmp_path)), *[train_row(step) for step in (1, 2, 3)])
    with (tmp_path / "train.csv").open("a") as file:
        file.write("2,0.")
    log(CsvTables(run_info(tmp_path, start_step=2)), train_row(3), train_row(4))
    assert [row["step"] for row in table(tmp_path, "train")] == ["1", "2", "3", "4"]


def scalars(folder, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_shows_no_step_twice_after_a_resume(tmp_path):
    log(TensorBoard(run_info(tmp_path)), *[train_row(step) for step in (1, 2, 3)], eval_row(3, "ema"))
    log(TensorBoard(run_info(tmp_path, start_step=2)), train_row(3, loss=9.0), train_row(4))
    assert scalars(tmp_path, "train/loss") == [(1, 1.0), (2, 0.5), (3, 9.0), (4, 0.25)]


def test_tensorboard_tags_name_the_weights(tmp_path):
    log(TensorBoard(run_info(tmp_path)), train_row(1), eval_row(1), eval_row(1, "ema"))
    assert scalars(tmp_path, "train/lr") == [(1, pytest.approx(0.1))]
    assert scalars(tmp_path, "eval/model/top1") == scalars(tmp_path, "eval/ema/top1") == [(1, 50.0)]


@pytest.mark.parametrize("build", [JsonLines, CsvTables, TensorBoard])
def test_a_folder_that_cannot_be_written_is_explained(build, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match=r"cannot be written: .*free space .* --output"):
        build(run_info(tmp_path / "file"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full is Linux's")
@pytest.mark.parametrize(("build", "name"), [(JsonLines, "metrics.jsonl"), (CsvTables, "train.csv")])
def test_on_a_full_disk_rows_wait_and_only_flush_and_close_raise(build, name, tmp_path):
    (tmp_path / name).symlink_to("/dev/full")
    logger = build(run_info(tmp_path))
    logger.log(train_row(1))
    for needs_the_disk, cure in ((logger.flush, "$"), (logger.close, "; free space")):
        with pytest.raises(RunFolderError, match=f"{name} cannot be written: No space left on device{cure}"):
            needs_the_disk()
