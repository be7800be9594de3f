"""Images on their way to the device: `TrainFeed` for the updates, `EvalFeed` for evaluation.

Both hand out uint8 [n, 3, size, size] in channels_last memory (the images as PIL has them, stacked) and int64 labels.
Normalising and mixing come later, on the device.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image

from convrun.data.image_set import ImageSet
from convrun.data.loading import Loader
from convrun.data.order import EvaluationBatches, Indices, MicroBatches, Position
from convrun.errors import ConvrunError, DataError
from convrun.randomness import sample_generator

ImageAugmentation = Callable[[Image.Image, random.Random], Image.Image]
ImageTransform = Callable[[Image.Image], Image.Image]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class MicroBatch(NamedTuple):
    """One forward pass of one rank: the update and the number of the micro-batch in it, both from 0, and the images."""

    step: int
    number: int
    epoch: int
    images: torch.Tensor
    labels: torch.Tensor


class EvalBatch(NamedTuple):
    """Some images of the evaluation split, with their labels and their numbers there."""

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


class _Feed:
    """A feed is closed by `with`, by `close()`, by its end, and by an error."""

    def close(self) -> None:
        raise NotImplementedError

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

    Raises:
        DataError: on iteration, if an image cannot be read, has another size, or a worker dies.
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
    ) -> None:
        fetch = _TrainFetch(images, order.seed, tuple(augmentations), input_size)
        self._loader = Loader(fetch, order, workers=workers, prefetch=prefetch, pin_memory=_is_cuda(device))

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
    ) -> None:
        self.wait_seconds = 0.0
        self._order = EvaluationBatches(images=len(images), batch_size=batch_size, rank=rank, world=world)
        self._fetch = _EvalFetch(images, transform, input_size)
        self._workers, self._prefetch, self._pin_memory = workers, prefetch, _is_cuda(device)
        self._loader: Loader[EvalBatch] | None = None

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[EvalBatch]:
        self.close()
        loader = self._loader = Loader(
            self._fetch,
            self._order,
            workers=min(self._workers, len(self._order)),
            prefetch=self._prefetch,
            pin_memory=self._pin_memory,
        )
        try:
            for batch in loader:
                self._collect_wait(loader)
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


class _Frames:
    """Loads an image and checks it; raises DataError with the image's name."""

    def __init__(self, images: ImageSet, split: str, input_size: int, cure: str) -> None:
        self.images, self._split, self._size, self._cure = images, split, input_size, cure
        self._classes = len(images.class_names)

    def load(self, index: int) -> tuple[Image.Image, int]:
        image, label = self.attempt(index, "cannot be loaded", self.images.load, index)
        if not 0 <= label < self._classes:  # on a GPU such a label ends in a device-side assert
            raise self.fault(index, f"has label {label}", f"labels must lie in 0..{self._classes - 1}")
        return image, label

    def attempt(self, index: int, trouble: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls the function; an unexpected exception (a plugin's bug, say) gets the image's name."""
        try:
            return function(*arguments)
        except ConvrunError:
            raise
        except Exception as error:
            what = f"{trouble}: {type(error).__name__}: {error}"
            raise self.fault(index, what, "run again with --debug to see where") from error

    def pixels(self, index: int, image: Any) -> Pixels:
        """The image as uint8 [size, size, 3]."""
        if not isinstance(image, Image.Image):
            raise self.fault(index, f"has become a {type(image).__name__}", "every step must return a PIL image")
        if image.size != (self._size, self._size) or image.mode != "RGB":
            found = f"has {image.width}×{image.height} pixels ({image.mode}), not {self._size}×{self._size} (RGB)"
            raise self.fault(index, found, self._cure)
        return np.asarray(image)

    def fault(self, index: int, what: str, cure: str) -> DataError:
        return DataError(f"split {self._split}, image {self.images.place(index)} {what}; {cure}")


class _TrainFetch:
    def __init__(
        self, images: ImageSet, seed: int, augmentations: tuple[ImageAugmentation, ...], input_size: int
    ) -> None:
        cure = (
            "give augmentations one that makes all images input_size pixels wide and high (random_resized_crop, "
            "say), or set input_size to the images' own"
        )
        self._frames = _Frames(images, "train", input_size, cure)
        self._seed, self._augmentations = seed, augmentations

    def __call__(self, position: Position) -> MicroBatch:
        made = [self._augmented(position.epoch, int(index)) for index in position.indices]
        return MicroBatch(position.step, position.number, position.epoch, *_stacked(made))

    def _augmented(self, epoch: int, index: int) -> tuple[Pixels, int]:
        image, label = self._frames.load(index)
        draws = sample_generator(self._seed, epoch, index)
        for augment in self._augmentations:
            image = self._frames.attempt(index, f"cannot be augmented by {_name(augment)}", augment, image, draws)
        return self._frames.pixels(index, image), label


class _EvalFetch:
    def __init__(self, images: ImageSet, transform: ImageTransform, input_size: int) -> None:
        self._frames = _Frames(images, "val", input_size, "the evaluation transform must give input_size")
        self._transform = transform

    def __call__(self, indices: Indices) -> EvalBatch:
        made = [self._transformed(int(index)) for index in indices]
        return EvalBatch(*_stacked(made), torch.from_numpy(indices))

    def _transformed(self, index: int) -> tuple[Pixels, int]:
        image, label = self._frames.load(index)
        image = self._frames.attempt(index, "cannot be transformed", self._transform, image)
        return self._frames.pixels(index, image), label


def _stacked(made: list[tuple[Pixels, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    stacked = torch.from_numpy(np.stack([pixels for pixels, _ in made]))
    return stacked.permute(0, 3, 1, 2), torch.tensor([label for _, label in made], dtype=torch.int64)


def _name(augmentation: Any) -> str:
    function = getattr(augmentation, "func", augmentation)  # functools.partial
    return getattr(function, "__name__", type(function).__name__)


def _is_cuda(device: torch.device | str) -> bool:
    return torch.device(device).type == "cuda"
