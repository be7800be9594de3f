"""Images on their way to the device: `TrainingBatches` step by step, `EvaluationBatches` pass by pass.

Both hand out uint8 [n, 3, size, size] in channels_last memory (the images as PIL has them, stacked) and int64 labels.
Normalising and mixing come later, on the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from convrun.contracts.data import ImageSet
from convrun.data.order import EvaluationOrder, Indices, Position, TrainingOrder
from convrun.data.sample import (
    DEFAULT,
    EvaluationSamples,
    ImageAugmentation,
    Images,
    ImageTransform,
    Sample,
    Tolerance,
    TrainingSamples,
)
from convrun.data.skipped import SkippedImage
from convrun.data.watchdog import Board, Watch
from convrun.data.workers import Fetched, Loader

OnSkipped = Callable[[Iterable[SkippedImage]], None]


class MicroBatch(NamedTuple):
    """One forward pass of one rank: the step and the number of the micro-batch in it, both from 0, and the images."""

    step: int
    number: int
    images: torch.Tensor
    labels: torch.Tensor


class EvalBatch(NamedTuple):
    """Some images of the evaluation split, with their labels."""

    images: torch.Tensor
    labels: torch.Tensor


# What a worker does ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingFetch:
    """Makes the micro-batch of a position."""

    samples: TrainingSamples
    board: Board

    def __call__(self, position: Position) -> Fetched[MicroBatch]:
        """The batch; runs in a worker."""
        skipped: list[SkippedImage] = []
        made = [self.samples.sample(position.epoch, index, skipped) for index in position.indices.tolist()]
        self.board.rest()
        return Fetched(MicroBatch(position.step, position.number, *_stacked(made)), tuple(skipped))


@dataclass(frozen=True)
class EvaluationFetch:
    """Makes the evaluation batch of some sample numbers, in their order; skipped images are left out."""

    samples: EvaluationSamples
    board: Board
    input_size: int

    def __call__(self, indices: Indices) -> Fetched[EvalBatch]:
        """The batch; runs in a worker."""
        found = [self.samples.sample(index) for index in indices.tolist()]
        self.board.rest()
        made = [sample for sample in found if not isinstance(sample, SkippedImage)]
        skipped = tuple(sample for sample in found if isinstance(sample, SkippedImage))
        if not made:
            none = torch.empty(0, 3, self.input_size, self.input_size, dtype=torch.uint8)
            return Fetched(EvalBatch(none, torch.empty(0, dtype=torch.int64)), skipped)
        return Fetched(EvalBatch(*_stacked(made)), skipped)


def _stacked(made: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(np.stack([pixels for pixels, _ in made]))  # copies each image once
    # [n, h, w, 3] seen as [n, 3, h, w]: nothing moves, and this is the channels_last layout that convolutions want.
    return images.permute(0, 3, 1, 2), torch.tensor([label for _, label in made], dtype=torch.int64)


# What the training process does ------------------------------------------------------------------------------------


class _Batches:
    """The workers end with `with`, `close()`, the last batch or any error; the next iteration starts new ones."""

    _loader: Loader[Any] | None = None

    def close(self) -> None:
        """Ends the workers, and what they have read ahead is lost."""
        if self._loader is not None:
            self._loader.close()
            self._loader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class TrainingBatches(_Batches):
    """The micro-batches of one rank, augmented, step by step; one set of workers runs ahead through the steps.

    Args:
        images: the training split.
        order: which samples, from which step to which.
        augmentations: applied to each image in turn, drawing from its generator (seed, epoch, sample).
        input_size: height and width that every image must have after them.
        workers: loader processes; 0 loads in this one.
        prefetch: micro-batches each worker keeps ready.
        device: where the images will go; page-locked memory is used for `cuda`.
        tolerance: what is done about images that cannot be read, and about workers that hang.
        on_skipped: is told of the images that others replace, before the micro-batch is handed out.

    Attributes:
        order: which samples, from which step to which.
        wait_seconds: time spent waiting for data, over all rewinds; may be set to 0.0.

    Raises:
        DataError: on iteration, if an image cannot be read, has another size, or a worker dies or hangs.
    """

    def __init__(
        self,
        images: ImageSet,
        order: TrainingOrder,
        augmentations: Sequence[ImageAugmentation],
        *,
        input_size: int,
        workers: int = 0,
        prefetch: int = 2,
        device: torch.device | str = "cpu",
        tolerance: Tolerance = DEFAULT,
        on_skipped: OnSkipped = lambda skipped: None,
    ) -> None:
        self.wait_seconds = 0.0
        self.order = order
        self._images, self._augmentations = images, tuple(augmentations)
        self._input_size, self._tolerance = input_size, tolerance
        self._loading: dict[str, Any] = {
            "on_skipped": on_skipped,
            "workers": workers,
            "prefetch": prefetch,
            "pin_memory": _is_cuda(device),
        }
        # What the open loader hands out next: the step, and how many of its micro-batches are gone.
        self._position = (order.start_step, 0)

    def of_step(self, step: int) -> StepBatches:
        """The micro-batches of a step (from 0).

        They come without a wait where this is the first step or the one after the last that was iterated to its end.
        Any other, one that is asked for again among them, costs what a start costs: new workers, nothing read ahead.
        """
        if not 0 <= step < self.order.end_step:
            raise ValueError(f"step {step} is not in 0..{self.order.end_step - 1}")
        return StepBatches(self, step)

    def taken(self, step: int) -> Iterator[MicroBatch]:
        """Takes a step's micro-batches from the workers, one by one; `of_step` is the way to call it."""
        loader = self._loader_at(step)
        for number in range(1, self.order.accumulation + 1):
            started = time.perf_counter()
            micro_batch = next(loader, None)  # waits only if no worker has it ready
            self.wait_seconds += time.perf_counter() - started
            if micro_batch is None:
                raise RuntimeError(f"the batches were closed or rewound while step {step} was iterated")
            self._position = (step, number)
            yield micro_batch
        self._position = (step + 1, 0)
        if step + 1 == self.order.end_step:
            self.close()  # nothing is left to read ahead, and the workers' memory is wanted by the last evaluation

    def _loader_at(self, step: int) -> Loader[MicroBatch]:
        if self._loader is None or self._loader.is_closed or self._position != (step, 0):
            self.close()
            self._loader, self._position = self._opened(step), (step, 0)
        return self._loader

    def _opened(self, step: int) -> Loader[MicroBatch]:
        """A loader that begins with a step. Costs one permutation of the epoch, and with workers a start of each."""
        board = Board(self._loading["workers"])
        images = Images(self._images, "train", self._tolerance, board)
        samples = TrainingSamples(images, self.order.seed, self._augmentations, self._input_size)
        watch = Watch(board, "train", self._images.place, self._tolerance.timeout_seconds)
        order = replace(self.order, start_step=step)
        return Loader(TrainingFetch(samples, board), order, watch=watch, **self._loading)


class StepBatches:
    """One step's micro-batches of one rank. Each iteration gives them from the first on; the second one rewinds."""

    def __init__(self, batches: TrainingBatches, step: int) -> None:
        self._batches, self.step = batches, step

    def __iter__(self) -> Iterator[MicroBatch]:
        return self._batches.taken(self.step)

    def rewind(self) -> None:
        """Ends the workers that have run ahead, at once: the next iteration starts new ones, at this step's first."""
        self._batches.close()


class EvaluationBatches(_Batches):
    """The images of the evaluation split that fall to one rank; over all ranks each comes exactly once.

    One that is skipped, because it cannot be read, does not come at all: the others alone are counted.
    May be iterated many times; each pass starts workers of its own.

    Args:
        images: the evaluation split.
        transform: brings an image to `input_size`.
        input_size: height and width that every image must have after it.
        batch_size: images of one batch; the last may have fewer.
        rank: this process.
        world: the number of processes.
        workers: loader processes; 0 loads in this one.
        prefetch: batches each worker keeps ready.
        device: where the images will go; page-locked memory is used for `cuda`.
        tolerance: what is done about images that cannot be read, and about workers that hang.
        on_skipped: is told of the images that are missing from a batch, before it is handed out.
    """

    def __init__(
        self,
        images: ImageSet,
        transform: ImageTransform,
        *,
        input_size: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        prefetch: int = 2,
        device: torch.device | str = "cpu",
        tolerance: Tolerance = DEFAULT,
        on_skipped: OnSkipped = lambda skipped: None,
    ) -> None:
        self._images, self._transform = images, transform
        self._order = EvaluationOrder(images=len(images), batch_size=batch_size, rank=rank, world=world)
        self._input_size, self._tolerance = input_size, tolerance
        self._loading: dict[str, Any] = {
            "on_skipped": on_skipped,
            "workers": min(workers, len(self._order)),
            "prefetch": prefetch,
            "pin_memory": _is_cuda(device),
        }

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[EvalBatch]:
        self.close()
        loader = self._loader = self._opened()
        try:
            for batch in loader:
                if len(batch.labels):  # unless every image of it was skipped
                    yield batch
        finally:
            loader.close()

    def _opened(self) -> Loader[EvalBatch]:
        board = Board(self._loading["workers"])
        images = Images(self._images, "val", self._tolerance, board)
        samples = EvaluationSamples(images, self._transform, self._input_size)
        watch = Watch(board, "val", self._images.place, self._tolerance.timeout_seconds)
        return Loader(EvaluationFetch(samples, board, self._input_size), self._order, watch=watch, **self._loading)


def _is_cuda(device: torch.device | str) -> bool:
    return torch.device(device).type == "cuda"
