from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from convrun.data import order
from convrun.data.order import EvaluationOrder, Position, TrainingOrder, epoch_order

SEED, IMAGES = 5, 103  # 4 updates of 24 an epoch, 7 images left out


def batches(**changes: int) -> TrainingOrder:
    return TrainingOrder(
        **{"seed": SEED, "images": IMAGES, "batch_size": 24, "micro_batch": 2, "end_step": 9, **changes}
    )


def plain(positions: TrainingOrder) -> list[tuple[int, int, int, list[int]]]:
    return [(p.step, p.number, p.epoch, p.indices.tolist()) for p in positions]


@pytest.mark.parametrize("images", [1, 2, 103, 5000])
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 3), (7, 0), (7, 299)])
def test_order_is_that_of_distributed_sampler(seed: int, epoch: int, images: int) -> None:
    sampler = DistributedSampler(range(images), num_replicas=1, rank=0, seed=seed)
    sampler.set_epoch(epoch)
    ours = epoch_order(seed, epoch, images)
    assert ours.dtype == np.int64
    assert ours.tolist() == list(sampler)


def test_updates_take_the_epochs_order_piece_by_piece() -> None:
    found = list(batches())
    assert batches().steps_per_epoch == 4
    for step in range(9):
        epoch, k = divmod(step, 4)
        mine = [p for p in found if p.step == step]
        assert [p.number for p in mine] == list(range(12))
        assert {p.epoch for p in mine} == {epoch}
        expected = epoch_order(SEED, epoch, IMAGES)[24 * k : 24 * (k + 1)]
        assert np.array_equal(np.concatenate([p.indices for p in mine]), expected)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_micro_batch_c_goes_to_rank_c_mod_world(world: int) -> None:
    ranks = [list(batches(world=world, rank=rank)) for rank in range(world)]
    for rank, found in enumerate(ranks):
        assert {p.number % world for p in found} == {rank}
        assert len(found) == len(batches(world=world, rank=rank)) == 9 * 12 // world
    key = lambda item: item[:2]  # noqa: E731
    together = sorted((row for rank in range(world) for row in plain(batches(world=world, rank=rank))), key=key)
    assert together == plain(batches())


@pytest.mark.parametrize("start", [0, 1, 3, 4, 7, 9])
def test_a_later_start_gives_the_tail(start: int) -> None:
    assert plain(batches(start_step=start)) == [row for row in plain(batches()) if row[0] >= start]


def test_a_start_far_away_draws_one_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counted(seed: int, epoch: int, images: int) -> order.Indices:
        drawn.append(epoch)
        return epoch_order(seed, epoch, images)

    monkeypatch.setattr(order, "epoch_order", counted)
    first: Position = next(iter(batches(start_step=4_000_002, end_step=5_000_000)))
    assert (first.step, first.epoch, drawn) == (4_000_002, 1_000_000, [1_000_000])
    drawn.clear()
    assert len(list(batches())) == 9 * 12
    assert drawn == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 104, "micro_batch": 1}, "more than the 103 images"),
        ({"micro_batch": 5}, r"no multiple of micro_batch × world, 5 × 1"),
        ({"micro_batch": 8, "world": 2}, r"no multiple of micro_batch × world, 8 × 2"),
        ({"world": 2, "rank": 2}, r"rank 2 is not in 0\.\.1"),
    ],
)
def test_what_does_not_divide_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches(**changes)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("images", [1, 4, 12, 31])
def test_evaluation_counts_each_image_once(images: int, world: int) -> None:
    seen: list[int] = []
    for rank in range(world):
        mine = EvaluationOrder(images=images, batch_size=3, rank=rank, world=world)
        found = [batch.tolist() for batch in mine]
        assert len(mine) == len(found)
        assert all(len(batch) == 3 for batch in found[:-1])
        flat = [index for batch in found for index in batch]
        assert flat == list(range(rank, images, world))
        seen += flat
    assert sorted(seen) == list(range(images))
