from __future__ import annotations

import functools
import pickle
import random
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convrun.data.feed import EvalFeed, MicroBatch, TrainFeed
from convrun.data.order import MicroBatches
from convrun.data.synthetic import SyntheticImages
from convrun.errors import DataError, PluginError
from convrun.randomness import sample_generator

IMAGES = SyntheticImages("train", 26, 3, 8)
VAL = SyntheticImages("val", 17, 3, 8)


def shift(image: Image.Image, draws: random.Random) -> Image.Image:
    """Adds a number drawn for this image to every pixel."""
    return Image.fromarray(np.asarray(image) + np.uint8(draws.randrange(256)))


def order(**changes: int) -> MicroBatches:
    defaults = {"seed": 3, "images": 26, "batch_size": 8, "micro_batch": 2, "end_step": 5}
    return MicroBatches(**{**defaults, **changes})


def feed(order: MicroBatches, *augmentations: Any, images: Any = IMAGES, size: int = 8, workers: int = 0) -> TrainFeed:
    return TrainFeed(images, order, augmentations, input_size=size, workers=workers)


def rows(batches: Any) -> list[tuple[Any, ...]]:
    return [(b.step, b.number, b.epoch, b.images.numpy().tobytes(), b.labels.tolist()) for b in batches]


def test_micro_batches_hold_the_augmented_images() -> None:
    for position, batch in zip(order(), feed(order(), shift, shift), strict=True):
        assert isinstance(batch, MicroBatch)
        assert batch[:3] == (position.step, position.number, position.epoch)
        assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (2, 3, 8, 8))
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.int64
        for pixels, label, index in zip(batch.images, batch.labels, position.indices, strict=True):
            draws = sample_generator(3, position.epoch, int(index))
            image, expected_label = IMAGES.load(int(index))
            expected = np.asarray(image) + np.uint8(draws.randrange(256)) + np.uint8(draws.randrange(256))
            assert label == expected_label
            assert np.array_equal(pixels.permute(1, 2, 0), expected)


def test_the_number_of_workers_changes_nothing() -> None:
    alone = rows(feed(order(), shift))
    assert len(alone) == len(order()) == 20
    for workers in (1, 2):
        with feed(order(), shift, workers=workers) as batches:
            first = next(batches)
            assert first.images.is_contiguous(memory_format=torch.channels_last)
            assert rows([first]) + rows(batches) == alone


@pytest.mark.parametrize("start", [1, 3, 4])
def test_a_start_in_the_middle_gives_the_tail(start: int) -> None:
    assert rows(feed(order(start_step=start), shift)) == [row for row in rows(feed(order(), shift)) if row[0] >= start]


def test_ranks_together_see_what_one_process_sees() -> None:
    ranks = [rows(feed(order(world=4, rank=rank), shift)) for rank in range(4)]
    assert sorted(row for rank in ranks for row in rank) == sorted(rows(feed(order(), shift)))
    assert [len(rank) for rank in ranks] == [5] * 4


def test_global_generators_are_left_alone() -> None:
    def states() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = states()
    rows(feed(order(), shift))
    with feed(order(), shift, workers=1) as batches:
        rows(batches)
    assert states() == before


def test_waiting_is_counted_and_may_be_reset() -> None:
    batches = feed(order(), slow)
    next(batches)
    assert 0.02 <= batches.wait_seconds < 10
    batches.wait_seconds = 0.0
    next(batches)
    next(batches)
    assert 0.04 <= batches.wait_seconds < 10


def slow(image: Image.Image, draws: random.Random) -> Image.Image:
    time.sleep(0.01)
    return image


def test_a_size_that_is_not_input_size_names_image_and_cure() -> None:
    message = r"^split train, image synthetic train image \d+ has 8×8 pixels \(RGB\), not 9×9 \(RGB\); .*set input_size"
    with pytest.raises(DataError, match=message):
        next(feed(order(), size=9))


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
        next(batches)
    assert "Traceback" not in str(caught.value)
    notes = "".join(getattr(caught.value, "__notes__", []))
    assert ("in buggy" in notes) == ("buggy" in message)


class Broken(SyntheticImages):
    """A plugin's data set with a bug."""

    def __init__(self, label: int | None) -> None:
        super().__init__("train", 26, 3, 8)
        self.label = label

    def load(self, index: int) -> tuple[Image.Image, int]:
        if self.label is None:
            raise IndexError("beyond the end")
        return super().load(index)[0], self.label


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
        next(feed(order(), images=Broken(label)))


def halved(image: Image.Image) -> Image.Image:
    return image.resize((4, 4), Image.Resampling.BOX)


def evaluation(**changes: Any) -> EvalFeed:
    return EvalFeed(VAL, halved, **{"input_size": 4, "batch_size": 3, **changes})


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
def test_evaluation_sees_each_image_once(world: int) -> None:
    seen = []
    for rank in range(world):
        mine = evaluation(rank=rank, world=world)
        batches = list(mine)
        assert len(batches) == len(mine)
        for images, labels, indices in batches:
            assert images.dtype == torch.uint8
            for pixels, label, index in zip(images, labels.tolist(), indices.tolist(), strict=True):
                image, expected_label = VAL.load(index)
                assert label == expected_label
                assert np.array_equal(pixels.permute(1, 2, 0), halved(image))
                seen.append(index)
    assert sorted(seen) == list(range(17))


def test_evaluation_with_workers_and_again() -> None:
    with evaluation(workers=2) as batches:
        for _ in range(2):
            assert [i for batch in batches for i in batch.indices.tolist()] == list(range(17))
        assert batches.wait_seconds > 0


def slowly_halved(image: Image.Image) -> Image.Image:
    time.sleep(0.005)
    return halved(image)


def test_waiting_adds_up_over_evaluation() -> None:
    batches = EvalFeed(VAL, slowly_halved, input_size=4, batch_size=3)
    started = time.perf_counter()
    list(batches)
    assert 17 * 0.005 <= batches.wait_seconds <= time.perf_counter() - started


def test_a_rank_without_images_sees_none() -> None:
    few = EvalFeed(SyntheticImages("val", 2, 2, 4), halved, input_size=4, batch_size=3, rank=2, world=3, workers=2)
    assert list(few) == []


def test_an_evaluation_transform_must_give_input_size() -> None:
    with pytest.raises(DataError, match=r"split val, image synthetic val image 0 has 4×4 pixels .*not 8×8"):
        list(evaluation(input_size=8))


def test_what_workers_need_can_be_pickled() -> None:
    train = feed(order(), shift)._loader._loader.dataset
    copy = pickle.loads(pickle.dumps(train))
    position = next(iter(order()))
    assert rows([copy[position].batch]) == rows([train[position].batch])
    fetch = pickle.loads(pickle.dumps(evaluation()._fetch))
    assert fetch(np.array([16])).batch.labels.tolist() == [VAL.load(16)[1]]
