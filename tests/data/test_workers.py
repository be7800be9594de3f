from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from convrun.data import workers
from convrun.data.order import TrainingOrder
from convrun.data.pipeline import EvaluationBatches, TrainingBatches
from convrun.data.sets.image_folder import ImageFolder, scan_tree
from convrun.data.sets.synthetic import SyntheticImages
from convrun.errors import DataError
from tests.data.steps import each

MAIN = os.getpid()


def feed(augmentation: Any, *, workers: int, images: Any = None, steps: int = 50) -> TrainingBatches:
    images = images or SyntheticImages("train", 8, 2, 4)
    order = TrainingOrder(seed=0, images=len(images), batch_size=2, micro_batch=2, end_step=steps)
    return TrainingBatches(images, order, [augmentation] if augmentation else [], input_size=4, workers=workers)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_file_that_is_no_image_is_named_through_two_workers(split: str, make_tree: Callable[..., Path]) -> None:
    root = make_tree(*(f"{side}/a/{i}.png" for side in ("train", "val") for i in range(8)))
    bad = root / split / "a/5.png"
    bad.write_text("no image")
    images = dict(zip(("train", "val"), scan_tree(str(root)), strict=True))
    batches: Any = (
        each(feed(None, workers=2, images=ImageFolder(images["train"])))
        if split == "train"
        else EvaluationBatches(ImageFolder(images["val"]), Image.Image.copy, input_size=4, batch_size=2, workers=2)
    )
    with pytest.raises(DataError) as caught:
        list(batches)
    assert str(caught.value) == (
        f"split {split}, image {bad} cannot be decoded: it is not an image of a format that convrun reads "
        "(JPEG, PNG, WEBP, GIF, TIFF, BMP, DIB, PPM, JPEG2000, AVIF); replace the file, delete it, or set "
        "data.bad_images=skip"
    )
    assert not hasattr(caught.value, "__notes__")
    assert multiprocessing.active_children() == []


def die(image: Image.Image, draws: random.Random) -> Image.Image:
    if os.getpid() != MAIN:
        os.kill(os.getpid(), signal.SIGKILL)
    return image


def test_a_killed_worker_is_an_error_with_a_cure() -> None:
    message = "loader worker 0 was ended by SIGKILL while .*; .*data.prefetch.*/dev/shm.*data.workers=0"
    with pytest.raises(DataError, match=message):
        next(each(feed(die, workers=1)))
    assert multiprocessing.active_children() == []


def test_workers_ignore_the_signals_the_trainer_handles() -> None:
    with feed(None, workers=2) as batches:
        steps = each(batches)
        seen = [next(steps).step]
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        for worker in workers:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(worker.pid, number)
        seen += [batch.step for batch in steps]
    assert seen == list(range(50))


def report_state(image: Image.Image, draws: random.Random) -> Image.Image:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    raise DataError(f"threads {torch.get_num_threads()}, blocked {sorted(blocked)}")


def test_workers_have_one_thread_and_block_no_signal() -> None:
    with pytest.raises(DataError, match=r"^threads 1, blocked \[\]$"), feed(report_state, workers=1) as batches:
        next(each(batches))


def test_the_trainers_own_signal_handling_is_left_alone() -> None:
    handlers = {number: signal.getsignal(number) for number in (*workers.IGNORED_SIGNALS, signal.SIGCHLD)}
    with feed(None, workers=1) as batches:
        next(each(batches))
        assert {number: signal.getsignal(number) for number in handlers} == handlers
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_closing_in_the_middle_ends_the_workers() -> None:
    batches = feed(None, workers=2)
    next(each(batches))
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    batches.close()
    assert multiprocessing.active_children() == []


def test_an_error_in_the_training_step_ends_the_workers() -> None:
    with pytest.raises(ZeroDivisionError), feed(None, workers=2) as batches:
        for _ in each(batches):
            raise ZeroDivisionError
    assert multiprocessing.active_children() == []


def test_an_evaluation_left_early_ends_its_workers() -> None:
    images = SyntheticImages("val", 8, 2, 4)
    with EvaluationBatches(images, Image.Image.copy, input_size=4, batch_size=1, workers=2) as batches:
        passing = iter(batches)
        next(passing)
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


def test_an_evaluation_loop_left_by_break_ends_its_workers() -> None:
    for _ in EvaluationBatches(
        SyntheticImages("val", 8, 2, 4), Image.Image.copy, input_size=4, batch_size=1, workers=2
    ):
        break
    assert multiprocessing.active_children() == []


class Stuck:
    """The first image comes at once, every other takes a minute: a disk that has gone away."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Image.Image, draws: random.Random) -> Image.Image:
        self.calls += 1
        if self.calls > 2:
            time.sleep(60)
        return image


def test_a_stuck_worker_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GRACE_SECONDS", 0.2)
    batches = feed(Stuck(), workers=1)
    next(each(batches))
    started = time.perf_counter()
    batches.close()
    assert time.perf_counter() - started < 30, "it was waited for"
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("moment", ["_set_worker_pids", "_set_SIGCHLD_handler"])
def test_workers_whose_start_is_cut_short_by_a_second_ctrl_c_are_ended_without_a_traceback(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convrun.process.signals import StopNow

    def stop(*_: Any) -> None:
        raise StopNow

    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, moment, stop)
    with pytest.raises(StopNow), feed(None, workers=2) as batches:
        next(each(batches))
    gc.collect()
    assert told == []
    assert multiprocessing.active_children() == []


SCRIPT = """
import time
from convrun.data import workers
from convrun.data.pipeline import TrainingBatches
from convrun.data.order import TrainingOrder
from convrun.data.sets.synthetic import SyntheticImages

workers.GRACE_SECONDS = 0.2

def stick(image, draws, calls=[]):
    calls.append(1)
    if len(calls) > 2:
        time.sleep(600)
    return image

order = TrainingOrder(seed=0, images=8, batch_size=2, micro_batch=2, end_step=50)
feed = TrainingBatches(SyntheticImages("train", 8, 2, 4), order, [stick], input_size=4, workers=1)
print(next(iter(feed.of_step(0))).step)
"""


def test_a_feed_nobody_closed_does_not_keep_python_from_ending() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)
