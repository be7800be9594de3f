"""Images on their way to the device: `TrainFeed` for the updates, `EvalFeed` for evaluation.

Both hand out uint8 [n, 3, size, size] in channels_last memory (the images as PIL has them, stacked) and int64 labels.
Normalising and mixing come later, on the device.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import torch

from convrun.contracts.data import ImageSet
from convrun.data.fetch import EvalBatch, EvalFetch, ImageAugmentation, ImageTransform, MicroBatch, TrainFetch
from convrun.data.loading import Loader
from convrun.data.order import EvaluationBatches, MicroBatches
from convrun.data.skipped import SkippedImage
from convrun.data.tolerance import DEFAULT, Tolerance
from convrun.data.watching import Board, Watch

__all__ = ["EvalBatch", "EvalFeed", "MicroBatch", "TrainFeed"]

OnSkipped = Callable[[Iterable[SkippedImage]], None]


class _Feed(abc.ABC):
    """A feed is closed by `with`, by `close()`, by its end, and by an error."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class TrainFeed(_Feed):
    """The micro-batches of one rank, augmented, in order; one set of workers serves the whole run.

    Args:
        images: the training split.
        order: which samples, from which update to which.
        augmentations: applied to each image in turn, drawing from its generator (seed, epoch, sample).
        input_size: height and width that every image must have after them.
        workers: loader processes; 0 loads in this one.
        prefetch: micro-batches each worker keeps ready.
        device: where the images will go; page-locked memory is used for `cuda`.
        tolerance: what is done about images that cannot be read, and about workers that hang.
        on_skipped: is told of the images that others replace, before the micro-batch is handed out.

    Raises:
        DataError: on iteration, if an image cannot be read, has another size, or a worker dies or hangs.
    """

    def __init__(
        self,
        images: ImageSet,
        order: MicroBatches,
        augmentations: Sequence[ImageAugmentation],
        *,
        input_size: int,
        workers: int = 0,
        prefetch: int = 2,
        device: torch.device | str = "cpu",
        tolerance: Tolerance = DEFAULT,
        on_skipped: OnSkipped = lambda skipped: None,
    ) -> None:
        board = Board(workers)
        self._loader = Loader(
            TrainFetch(images, order.seed, tuple(augmentations), input_size, tolerance, board),
            order,
            watch=Watch(board, "train", images.place, tolerance.timeout_seconds),
            on_skipped=on_skipped,
            workers=workers,
            prefetch=prefetch,
            pin_memory=_is_cuda(device),
        )

    @property
    def wait_seconds(self) -> float:
        """Seconds spent waiting for data since the last reset (`feed.wait_seconds = 0.0`)."""
        return self._loader.wait_seconds

    @wait_seconds.setter
    def wait_seconds(self, seconds: float) -> None:
        self._loader.wait_seconds = seconds

    def __iter__(self) -> Iterator[MicroBatch]:
        return self

    def __next__(self) -> MicroBatch:
        return next(self._loader)

    def close(self) -> None:
        """Ends the workers; nothing comes after that."""
        self._loader.close()


class EvalFeed(_Feed):
    """The images of the evaluation split that fall to one rank; over all ranks each comes exactly once.

    One that is skipped, because it cannot be read, does not come at all: the others alone are counted.
    May be iterated many times; each pass starts workers of its own. `wait_seconds` adds up over the passes.

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
        self.wait_seconds = 0.0
        self._order = EvaluationBatches(images=len(images), batch_size=batch_size, rank=rank, world=world)
        self._workers, self._prefetch, self._pin_memory = workers, prefetch, _is_cuda(device)
        board = Board(workers)
        self._fetch = EvalFetch(images, transform, input_size, tolerance, board)
        self._watch = Watch(board, "val", images.place, tolerance.timeout_seconds)
        self._on_skipped = on_skipped
        self._loader: Loader[EvalBatch] | None = None

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[EvalBatch]:
        self.close()
        loader = self._loader = Loader(
            self._fetch,
            self._order,
            watch=self._watch,
            on_skipped=self._on_skipped,
            workers=min(self._workers, len(self._order)),
            prefetch=self._prefetch,
            pin_memory=self._pin_memory,
        )
        try:
            for batch in loader:
                self._collect_wait(loader)
                if len(batch.labels):  # unless every image of it was skipped
                    yield batch
        finally:
            loader.close()

    def _collect_wait(self, loader: Loader[EvalBatch]) -> None:
        self.wait_seconds += loader.wait_seconds
        loader.wait_seconds = 0.0

    def close(self) -> None:
        """Ends the workers of a pass that was left early."""
        if self._loader is not None:
            self._loader.close()


def _is_cuda(device: torch.device | str) -> bool:
    return torch.device(device).type == "cuda"
