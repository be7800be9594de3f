from __future__ import annotations

import functools
import itertools
import multiprocessing
import pickle
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convrun.data.order import TrainingOrder
from convrun.data.pipeline import EvalBatch, EvaluationBatches, MicroBatch, TrainingBatches
from convrun.data.sets.synthetic import SyntheticImages
from convrun.errors import DataError, PluginError
from convrun.randomness import sample_generator
from tests.data.reading import load
from tests.data.steps import each

IMAGES = SyntheticImages("train", 26, 3, 8)
VAL = SyntheticImages("val", 17, 3, 8)


def shift(image: Image.Image, draws: random.Random) -> Image.Image:
    """Adds a number drawn for this image to every pixel."""
    return Image.fromarray(np.asarray(image) + np.uint8(draws.randrange(256)))


def order(**changes: int) -> TrainingOrder:
    defaults = {"seed": 3, "images": 26, "batch_size": 8, "micro_batch": 2, "end_step": 5}
    return TrainingOrder(**{**defaults, **changes})


def feed(
    order: TrainingOrder, *augmentations: Any, images: Any = IMAGES, size: int = 8, workers: int = 0
) -> TrainingBatches:
    return TrainingBatches(images, order, augmentations, input_size=size, workers=workers)


def rows(batches: Any) -> list[tuple[Any, ...]]:
    return [(b.step, b.number, b.images.numpy().tobytes(), b.labels.tolist()) for b in batches]


def test_micro_batches_hold_the_augmented_images() -> None:
    for position, batch in zip(order(), each(feed(order(), shift, shift)), strict=True):
        assert isinstance(batch, MicroBatch)
        assert batch[:2] == (position.step, position.number)
        assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (2, 3, 8, 8))
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.int64
        for pixels, label, index in zip(batch.images, batch.labels, position.indices, strict=True):
            draws = sample_generator(3, position.epoch, int(index))
            image, expected_label = load(IMAGES, int(index))
            expected = np.asarray(image) + np.uint8(draws.randrange(256)) + np.uint8(draws.randrange(256))
            assert label == expected_label
            assert np.array_equal(pixels.permute(1, 2, 0), expected)


def test_the_number_of_workers_changes_nothing() -> None:
    alone = rows(each(feed(order(), shift)))
    assert len(alone) == len(order()) == 20
    for workers in (1, 2):
        with feed(order(), shift, workers=workers) as batches:
            steps = each(batches)
            first = next(steps)
            assert first.images.is_contiguous(memory_format=torch.channels_last)
            assert rows([first]) + rows(steps) == alone


@pytest.mark.parametrize("start", [1, 3, 4])
def test_a_start_in_the_middle_gives_the_tail(start: int) -> None:
    assert rows(each(feed(order(start_step=start), shift))) == [
        row for row in rows(each(feed(order(), shift))) if row[0] >= start
    ]


def test_ranks_together_see_what_one_process_sees() -> None:
    ranks = [rows(each(feed(order(world=4, rank=rank), shift))) for rank in range(4)]
    assert sorted(row for rank in ranks for row in rank) == sorted(rows(each(feed(order(), shift))))
    assert [len(rank) for rank in ranks] == [5] * 4


def test_global_generators_are_left_alone() -> None:
    def states() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = states()
    rows(each(feed(order(), shift)))
    with feed(order(), shift, workers=1) as batches:
        rows(each(batches))
    assert states() == before


def test_waiting_is_counted_and_may_be_reset() -> None:
    batches = feed(order(), slow)
    steps = each(batches)
    next(steps)
    assert 0.02 <= batches.wait_seconds < 10
    batches.wait_seconds = 0.0
    next(steps)
    next(steps)
    assert 0.04 <= batches.wait_seconds < 10


def slow(image: Image.Image, draws: random.Random) -> Image.Image:
    time.sleep(0.01)
    return image


def test_a_size_that_is_not_input_size_names_image_and_cure() -> None:
    message = r"^split train, image synthetic train image \d+ has 8×8 pixels \(RGB\), not 9×9 \(RGB\); .*set input_size"
    with pytest.raises(DataError, match=message):
        next(each(feed(order(), size=9)))


def grey(image: Image.Image, draws: random.Random) -> Image.Image:
    return image.convert("L")


def nothing(image: Image.Image, draws: random.Random) -> None:
    return None


def buggy(image: Image.Image, draws: random.Random, *, amount: int = 0) -> Image.Image:
    raise KeyError("no such thing")


def refusing(image: Image.Image, draws: random.Random) -> Image.Image:
    raise PluginError("the plugin says no")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (grey, r"image synthetic train image \d+ has 8×8 pixels \(L\), not"),
        (nothing, r"image synthetic train image \d+ has become a NoneType; every step must return a PIL image"),
        (functools.partial(buggy, amount=3), r"image \d+ cannot be augmented by buggy: KeyError: 'no such thing'; run"),
        (refusing, "^the plugin says no$"),
    ],
)
def test_augmentations_that_go_wrong(augmentation: Any, message: str, workers: int) -> None:
    with pytest.raises(DataError, match=message) as caught, feed(order(), augmentation, workers=workers) as batches:
        next(each(batches))
    assert "Traceback" not in str(caught.value)
    notes = "".join(getattr(caught.value, "__notes__", []))
    assert ("in buggy" in notes) == ("buggy" in message)


class Broken(SyntheticImages):
    """A plugin's data set with a bug."""

    def __init__(self, label: int | None) -> None:
        super().__init__("train", 26, 3, 8)
        self.label = label

    def read(self, index: int) -> tuple[Any, int]:
        if self.label is None:
            raise IndexError("beyond the end")
        return super().read(index)[0], self.label


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (3, r"train image \d+ has label 3; labels must lie in 0\.\.2"),
        (-1, "has label -1"),
        (None, r"split train, image synthetic train image \d+ cannot be loaded: IndexError: beyond the end"),
    ],
)
def test_image_sets_that_go_wrong(label: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        next(each(feed(order(), images=Broken(label))))


def halved(image: Image.Image) -> Image.Image:
    return image.resize((4, 4), Image.Resampling.BOX)


def evaluation(**changes: Any) -> EvaluationBatches:
    return EvaluationBatches(VAL, halved, **{"input_size": 4, "batch_size": 3, **changes})


def images_and_labels(batches: Iterable[EvalBatch]) -> list[tuple[bytes, int]]:
    """Each image's pixels, height × width × channels, and its label."""
    return [
        (pixels.permute(1, 2, 0).contiguous().numpy().tobytes(), int(label))
        for batch in batches
        for pixels, label in zip(batch.images, batch.labels, strict=True)
    ]


def expected(*indices: int) -> list[tuple[bytes, int]]:
    return [(halved(image).tobytes(), label) for image, label in (load(VAL, index) for index in indices)]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
def test_evaluation_sees_each_image_once(world: int) -> None:
    for rank in range(world):
        mine = evaluation(rank=rank, world=world)
        batches = list(mine)
        assert len(batches) == len(mine)
        assert {batch.images.dtype for batch in batches} == {torch.uint8}
        assert images_and_labels(batches) == expected(*range(rank, 17, world))


def test_evaluation_with_workers_and_again() -> None:
    with evaluation(workers=2) as batches:
        for _ in range(2):
            assert images_and_labels(batches) == expected(*range(17))


def test_a_rank_without_images_sees_none() -> None:
    few = EvaluationBatches(
        SyntheticImages("val", 2, 2, 4), halved, input_size=4, batch_size=3, rank=2, world=3, workers=2
    )
    assert list(few) == []


def test_an_evaluation_transform_must_give_input_size() -> None:
    with pytest.raises(DataError, match=r"split val, image synthetic val image 0 has 4×4 pixels .*not 8×8"):
        list(evaluation(input_size=8))


def test_what_workers_need_can_be_pickled() -> None:
    train = feed(order(), shift)._opened(0)._loader.dataset
    copy = pickle.loads(pickle.dumps(train))
    position = next(iter(order()))
    assert rows([copy[position].batch]) == rows([train[position].batch])
    fetch = pickle.loads(pickle.dumps(evaluation()._opened()._loader.dataset))
    assert fetch[np.array([16])].batch.labels.tolist() == [VAL.read(16)[1]]


# Rewinding ----------------------------------------------------------------------------------------------------------


class Notes:
    """The steps at which a loader was opened, in turn."""

    def __init__(self, batches: TrainingBatches, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[int] = []
        opened = batches._opened
        monkeypatch.setattr(batches, "_opened", lambda step: (self.opened.append(step), opened(step))[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_in_order_are_served_by_one_start(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with feed(order(start_step=1), shift, workers=workers) as batches:
        notes = Notes(batches, monkeypatch)
        asked = [batches.of_step(step) for step in range(1, 5)]
        assert notes.opened == [] == multiprocessing.active_children(), "nothing is opened before it is iterated"
        found = [rows(step) for step in asked]
    assert notes.opened == [1]
    assert [row for step in found for row in step] == rows(each(feed(order(start_step=1), shift)))
    assert [{row[0] for row in step} for step in found] == [{1}, {2}, {3}, {4}]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [1, 3, 4])
def test_a_step_that_is_asked_for_again_comes_again_from_its_first(
    taken: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = rows(each(feed(order(), shift)))
    with feed(order(), shift, workers=workers) as batches:
        notes = Notes(batches, monkeypatch)
        assert rows(batches.of_step(0)) == alone[:4]
        assert rows(itertools.islice(batches.of_step(1), taken)) == alone[4 : 4 + taken]
        again = batches.of_step(1)
        assert rows(again) == rows(again) == alone[4:8]
        assert rows(batches.of_step(2)) == alone[8:12]
        assert notes.opened == [0, 1, 1]


def test_any_other_step_may_be_asked_for() -> None:
    alone = rows(each(feed(order(), shift)))
    with feed(order(), shift, workers=1) as batches:
        for step in (3, 0, 2, 3, 4, 4, 1):
            assert rows(batches.of_step(step)) == alone[4 * step : 4 * step + 4]
    for step in (-1, 5):
        with pytest.raises(ValueError, match=rf"step {step} is not in 0\.\.4"):
            batches.of_step(step)


@pytest.mark.parametrize("taken", [0, 1])
def test_rewind_ends_the_workers_at_once(taken: int) -> None:
    alone = rows(each(feed(order(), shift)))
    with feed(order(), shift, workers=2) as batches:
        assert rows(batches.of_step(0)) == alone[:4]
        step = batches.of_step(1)
        micro_batches = iter(step)  # held on to: nothing may depend on the garbage collector
        for _ in range(taken):
            next(micro_batches)
        assert len(multiprocessing.active_children()) == 2
        step.rewind()
        assert multiprocessing.active_children() == []
        step.rewind()
        assert rows(step) == alone[4:8]
        if taken:
            with pytest.raises(RuntimeError, match="closed or rewound while step 1 was iterated"):
                next(micro_batches)


def test_after_the_last_step_no_worker_is_left() -> None:
    with feed(order(), workers=2) as batches:
        rows(each(batches))
        assert multiprocessing.active_children() == []
        assert len(rows(batches.of_step(4))) == 4


def failing_once(image: Image.Image, draws: random.Random, *, marker: Path) -> Image.Image:
    if not marker.exists():
        marker.touch()
        raise DataError("a disk that comes back")
    return image


@pytest.mark.parametrize("workers", [0, 1])
def test_after_an_error_the_step_can_be_asked_for_again(workers: int, tmp_path: Path) -> None:
    fails = functools.partial(failing_once, marker=tmp_path / "marker")
    with feed(order(), shift, fails, workers=workers) as batches:
        step = batches.of_step(0)
        with pytest.raises(DataError, match="a disk that comes back"):
            list(step)
        assert multiprocessing.active_children() == []
        assert rows(step) == rows(each(feed(order(), shift)))[:4]


def test_waiting_adds_up_over_rewinds() -> None:
    batches = feed(order(), slow)  # 2 × 10 ms for each of 4 micro-batches
    for _ in range(3):
        rows(batches.of_step(0))
    assert 3 * 0.08 <= batches.wait_seconds < 10
