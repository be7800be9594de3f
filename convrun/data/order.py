"""Which sample is where: the order of an epoch, and its cut into the micro-batches of one rank.

The order of epoch e is the permutation torch's DistributedSampler draws for one replica. Step s takes the next
`batch_size` samples of epoch s // steps_per_epoch; they are cut into micro-batches, and micro-batch c goes to rank
c mod world. All of it is arithmetic on the step, so starting anywhere costs one permutation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convrun.plan.arithmetic import accumulation, steps_per_epoch
from convrun.randomness import derived_seed

Indices = npt.NDArray[np.int64]


def epoch_order(seed: int, epoch: int, images: int) -> Indices:
    """The sample numbers in the order of this epoch (counted from 0)."""
    import torch

    generator = torch.Generator().manual_seed(seed + epoch)
    order: Indices = torch.randperm(images, generator=generator).numpy()
    return order


def replacements(seed: int, epoch: int, index: int, images: int, count: int) -> list[int]:
    """The samples, at most `count`, that take the place of one that cannot be read: the first that can does."""
    draws = random.Random(derived_seed("replacement", seed, epoch, index))
    drawn = draws.sample(range(images), min(images, count + 1))
    return [other for other in drawn if other != index][:count]


@dataclass(frozen=True)
class Position:
    """One micro-batch: the step it belongs to and its number there (both from 0), its epoch and its samples."""

    step: int
    number: int
    epoch: int
    indices: Indices


@dataclass(frozen=True, kw_only=True)
class TrainingOrder:
    """The micro-batches of one rank, from `start_step` up to, not including, `end_step`.

    Attributes:
        seed: the run's seed.
        images: the size of the training split.
        batch_size: images of one step, over all ranks.
        micro_batch: images of one forward pass on one rank.
        rank: this process.
        world: the number of processes.
        start_step: the first step, counted from 0.
        end_step: the step to stop before.
    """

    seed: int
    images: int
    batch_size: int
    micro_batch: int
    rank: int = 0
    world: int = 1
    start_step: int = 0
    end_step: int

    def __post_init__(self) -> None:
        if self.batch_size > self.images:
            raise ValueError(f"batch_size {self.batch_size} is more than the {self.images} images there are")
        if self.batch_size % (self.micro_batch * self.world):
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of micro_batch × world, {self.micro_batch} × {self.world}"
            )
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} is not in 0..{self.world - 1}")

    @property
    def steps_per_epoch(self) -> int:
        """Steps an epoch, as the plan counts them; the rest of the permutation is left out."""
        return steps_per_epoch(self.images, self.batch_size)

    @property
    def accumulation(self) -> int:
        """Micro-batches a rank sums up for one step."""
        return accumulation(self.batch_size, self.micro_batch, self.world)

    def __len__(self) -> int:
        return max(0, self.end_step - self.start_step) * self.accumulation

    def __iter__(self) -> Iterator[Position]:
        ordered, order = -1, np.empty(0, np.int64)
        for step in range(self.start_step, self.end_step):
            epoch, k = divmod(step, self.steps_per_epoch)
            if epoch != ordered:
                ordered, order = epoch, epoch_order(self.seed, epoch, self.images)
            for number in range(self.rank, self.batch_size // self.micro_batch, self.world):
                first = k * self.batch_size + number * self.micro_batch
                yield Position(step, number, epoch, order[first : first + self.micro_batch])


@dataclass(frozen=True, kw_only=True)
class EvaluationOrder:
    """Samples rank, rank + world, rank + 2 world, … in batches: over all ranks each sample comes exactly once."""

    images: int
    batch_size: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return -(-len(range(self.rank, self.images, self.world)) // self.batch_size)

    def __iter__(self) -> Iterator[Indices]:
        stride = self.batch_size * self.world
        for first in range(self.rank, self.images, stride):
            yield np.arange(first, min(first + stride, self.images), self.world, dtype=np.int64)
