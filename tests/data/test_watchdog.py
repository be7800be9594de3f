from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from convrun.data import watchdog
from convrun.data.order import TrainingOrder
from convrun.data.pipeline import EvaluationBatches, TrainingBatches
from convrun.data.sample import Tolerance
from convrun.data.sets.synthetic import SyntheticImages
from convrun.data.watchdog import READING, Board, Watch, WorkerStuck
from convrun.errors import DataError
from tests.data.steps import each

MAIN = os.getpid()


class Trap(SyntheticImages):
    """Image 5 does something to the worker that reads it."""

    def __init__(self, what: Any, split: str = "train") -> None:
        super().__init__(split, 12, 3, 8)
        self.what = what

    def read(self, index: int) -> tuple[Any, int]:
        if index == 5 and os.getpid() != MAIN:
            self.what()
        return super().read(index)

    def place(self, index: int) -> str:
        return f"/set/{index}\n.png"


def sleep() -> None:
    time.sleep(60)


def feed(images: Any, timeout: float | None = 1.0, workers: int = 2, augmentations: Any = ()) -> TrainingBatches:
    order = TrainingOrder(seed=0, images=len(images), batch_size=4, micro_batch=2, end_step=9)
    return TrainingBatches(
        images, order, augmentations, input_size=8, workers=workers, tolerance=Tolerance(timeout_seconds=timeout)
    )


def evaluation(images: Any, timeout: float = 1.0) -> EvaluationBatches:
    tolerance = Tolerance(timeout_seconds=timeout)
    return EvaluationBatches(images, Image.Image.copy, input_size=8, batch_size=2, workers=2, tolerance=tolerance)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_worker_that_hangs_is_reported_with_its_image_and_killed(split: str) -> None:
    images = Trap(sleep, split)
    batches: Any = each(feed(images)) if split == "train" else evaluation(images)
    message = (
        rf"^split {split}: loader worker [01] has been reading /set/5\\n.png for \d+ s; look at the disk .*or set "
        r"data.timeout to more than 1 seconds \(null: wait for ever\)$"
    )
    started = time.perf_counter()
    with pytest.raises(DataError, match=message):
        list(batches)
    assert 1 <= time.perf_counter() - started < 50
    assert multiprocessing.active_children() == []


def stuck(image: Image.Image, draws: random.Random) -> Image.Image:
    time.sleep(60)
    return image


def test_an_augmentation_that_hangs_is_reported() -> None:
    with pytest.raises(DataError, match=r"loader worker 0 has been transforming synthetic train image \d+ for"):
        next(each(feed(SyntheticImages("train", 12, 3, 8), workers=1, augmentations=[stuck])))


class Slow(SyntheticImages):
    def read(self, index: int) -> tuple[Any, int]:
        time.sleep(0.1)
        return super().read(index)


def test_slow_is_not_stuck() -> None:
    """A micro-batch takes longer than the timeout, but each image only a small part of it."""
    order = TrainingOrder(seed=0, images=20, batch_size=20, micro_batch=20, end_step=1)
    tolerance = Tolerance(timeout_seconds=1.5)
    with TrainingBatches(Slow("train", 20, 2, 8), order, [], input_size=8, workers=1, tolerance=tolerance) as batches:
        assert len(list(each(batches))) == 1


def test_a_training_step_that_takes_long_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "POLL_SECONDS", 0.05)
    with feed(SyntheticImages("train", 12, 3, 8), timeout=1.0, workers=1) as batches:
        steps = each(batches)
        for _ in range(2):
            next(steps)
            time.sleep(1.2)
        assert len(list(steps)) == 16


def exit_quietly() -> None:
    os._exit(0)


@pytest.mark.parametrize(
    ("what", "how"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was ended by SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGRTMIN + 3), "was ended by signal 37"),
        (lambda: os._exit(3), "ended with exit code 3"),
        (exit_quietly, "ended with exit code 0"),
    ],
)
def test_a_worker_that_dies_is_reported_with_its_image_soon(
    what: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchs_look = _MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(torchs_look, "__defaults__", (60.0,))
    started = time.perf_counter()
    with pytest.raises(DataError, match=rf"^split train: loader worker [01] {how} while reading /set/5\\n.png; if mem"):
        list(each(feed(Trap(what), timeout=None)))
    assert time.perf_counter() - started < 50, "torch alone looks at such intervals"
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_at_rest_is_reported() -> None:
    with feed(SyntheticImages("train", 12, 3, 8), workers=1) as batches:
        steps = each(batches)
        next(steps)
        while batches._loader._watch._board.read(0)[3] < 9:  # three micro-batches: two images and a rest each
            time.sleep(0.01)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        with pytest.raises(DataError, match="loader worker 0 was ended by SIGKILL between two micro-batches"):
            list(steps)


def watch(timeout: float | None) -> tuple[Board, Watch]:
    board = Board(2)
    return board, Watch(board, "val", str, timeout)


def test_waiting_counts_from_a_workers_last_sign_of_life() -> None:
    board, watching_it = watch(10)
    board.begin(READING, 7)
    watching_it.start()
    for _ in range(3):
        watching_it.wait(0, 9)
        board.begin(READING, 8)
    watching_it.wait(0, 9)
    with pytest.raises(WorkerStuck, match="split val: loader worker 0 has been reading 8 for 0 s"):
        watching_it.wait(0, 1)


def test_a_result_that_is_lost_on_its_way_is_noticed() -> None:
    board, watching_it = watch(10)
    watching_it.start()
    watching_it.wait(1, 9)
    board.begin(READING, 3)  # by worker 0
    with pytest.raises(WorkerStuck, match="loader worker 1 has delivered nothing for 10 s"):
        watching_it.wait(1, 1)


def test_without_a_timeout_nothing_is_too_long() -> None:
    watch(None)[1].wait(0, 1e9)


SCRIPT = """
import os, sys, time
from convrun.data import workers
from convrun.data.pipeline import TrainingBatches
from convrun.data.order import TrainingOrder
from convrun.data.sets.synthetic import SyntheticImages
from convrun.data.sample import Tolerance

workers.GRACE_SECONDS = 0.2
workers._kill = lambda workers: print(workers[0].pid, flush=True)  # a process in a dead disk's system call stays

def stick(image, draws):
    time.sleep(600)

order = TrainingOrder(seed=0, images=8, batch_size=2, micro_batch=2, end_step=50)
images = SyntheticImages("train", 8, 2, 4)
next(iter(TrainingBatches(
    images, order, [stick], input_size=4, workers=1, tolerance=Tolerance(timeout_seconds=0.5)
).of_step(0)))
"""


def test_a_worker_that_even_sigkill_does_not_end_keeps_nothing_waiting(tmp_path: Path) -> None:
    with (tmp_path / "errors").open("w+") as errors:  # no pipe: the worker would keep it open
        process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        try:
            assert process.wait(60) == 1
            os.kill(worker, 0)  # it is there still
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        errors.seek(0)
        assert "WorkerStuck: split train: loader worker 0 has been transforming" in errors.read()
