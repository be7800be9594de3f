"""What a loader worker does: from sample numbers to a batch of uint8 images, each checked and named in errors."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image

from convrun.contracts.data import ImageSet
from convrun.data.image_set import BadImage, reason_of
from convrun.data.order import Indices, Position, replacements
from convrun.data.skipped import SkippedImage
from convrun.data.tolerance import Tolerance, retried
from convrun.data.watching import READING, TRANSFORMING, Board
from convrun.errors import ConvrunError, DataError
from convrun.randomness import sample_generator
from convrun.text.wording import printable

ImageAugmentation = Callable[[Image.Image, random.Random], Image.Image]
ImageTransform = Callable[[Image.Image], Image.Image]
T = TypeVar("T")
# If so many drawn at random fail, it is not the images: a disk is gone.
REPLACEMENTS = 10
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


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


class Fetched(NamedTuple, Generic[T]):
    """What comes out of a worker: a batch, and the images that were left out of it because they cannot be read."""

    batch: T
    skipped: tuple[SkippedImage, ...]


class _Frames:
    """Loads an image and checks it; raises DataError with the image's name."""

    def __init__(
        self, images: ImageSet, split: str, input_size: int, cure: str, tolerance: Tolerance, board: Board
    ) -> None:
        self.images, self.board = images, board
        self._split, self._size, self._cure, self._tolerance = split, input_size, cure, tolerance
        self._classes = len(images.class_names)

    def load(self, index: int) -> tuple[Image.Image, int] | SkippedImage:
        """The image and its label; where bad images are skipped, the note about this one."""
        try:
            image, label = self._attempt(index, "cannot be loaded", retried, self._tolerance.retries, self._read, index)
        except BadImage as error:
            if not self._tolerance.skips_bad_images:
                raise
            return SkippedImage(self._split, index, self.images.place(index), error.reason)
        if not 0 <= label < self._classes:  # on a GPU such a label ends in a device-side assert
            raise self._fault(index, f"has label {label}", f"labels must lie in 0..{self._classes - 1}")
        return image, label

    def _read(self, index: int) -> tuple[Image.Image, int]:
        self.board.begin(READING, index)
        try:
            image, label = self.images.load(index)
            if isinstance(image, Image.Image):
                image.load()  # a plugin may return a file that is only opened
            return image, label
        except OSError as error:
            raise BadImage(self._split, self.images.place(index), reason_of(error)) from None

    def transform(self, index: int, trouble: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function that changes the image."""
        self.board.begin(TRANSFORMING, index)
        return self._attempt(index, trouble, function, *arguments)

    def _attempt(self, index: int, trouble: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls the function; an unexpected exception (a plugin's bug, say) gets the image's name."""
        try:
            return function(*arguments)
        except ConvrunError:
            raise
        except Exception as error:
            what = f"{trouble}: {type(error).__name__}: {error}"
            raise self._fault(index, what, "run again with --debug to see where") from error

    def pixels(self, index: int, image: Any) -> Pixels:
        """The image as uint8 [size, size, 3]."""
        if not isinstance(image, Image.Image):
            raise self._fault(index, f"has become a {type(image).__name__}", "every step must return a PIL image")
        if image.size != (self._size, self._size) or image.mode != "RGB":
            found = f"has {image.width}×{image.height} pixels ({image.mode}), not {self._size}×{self._size} (RGB)"
            raise self._fault(index, found, self._cure)
        return np.asarray(image)

    def _fault(self, index: int, what: str, cure: str) -> DataError:
        return DataError(f"split {self._split}, image {printable(self.images.place(index))} {what}; {cure}")


class TrainFetch:
    """Makes the micro-batch of a position: loads each image and applies the augmentations."""

    def __init__(
        self,
        images: ImageSet,
        seed: int,
        augmentations: tuple[ImageAugmentation, ...],
        input_size: int,
        tolerance: Tolerance,
        board: Board,
    ) -> None:
        cure = (
            "give augmentations one that makes all images input_size pixels wide and high (random_resized_crop, "
            "say), or set input_size to the images' own"
        )
        self._frames = _Frames(images, "train", input_size, cure, tolerance, board)
        self._seed, self._augmentations = seed, augmentations

    def __call__(self, position: Position) -> Fetched[MicroBatch]:
        """Every draw comes from (seed, epoch, sample number)."""
        skipped: list[SkippedImage] = []
        made = [self._augmented(position.epoch, int(index), skipped) for index in position.indices]
        self._frames.board.rest()
        return Fetched(MicroBatch(position.step, position.number, *_stacked(made)), tuple(skipped))

    def _augmented(self, epoch: int, index: int, skipped: list[SkippedImage]) -> tuple[Pixels, int]:
        shown, image, label = self._loaded(epoch, index, skipped)
        draws = sample_generator(self._seed, epoch, index)
        for augment in self._augmentations:
            image = self._frames.transform(shown, f"cannot be augmented by {_name(augment)}", augment, image, draws)
        return self._frames.pixels(shown, image), label

    def _loaded(self, epoch: int, index: int, skipped: list[SkippedImage]) -> tuple[int, Image.Image, int]:
        """The sample, or the first of those drawn to replace it that can be read, with its number."""
        found = self._frames.load(index)
        if not isinstance(found, SkippedImage):
            return index, *found
        bad = [found]
        for other in replacements(self._seed, epoch, index, len(self._frames.images), REPLACEMENTS):
            found = self._frames.load(other)
            if not isinstance(found, SkippedImage):
                skipped += bad
                return other, *found
            bad.append(found)
        raise DataError(
            f"split train: of {len(bad)} images drawn at random none can be read, the last is "
            f"{printable(bad[-1].place)}: {bad[-1].reason}; check that the data are still there"
        )


class EvalFetch:
    """Makes the evaluation batch of some sample numbers; nothing can replace an image there, so one less is counted."""

    def __init__(
        self, images: ImageSet, transform: ImageTransform, input_size: int, tolerance: Tolerance, board: Board
    ) -> None:
        cure = "the evaluation transform must give input_size"
        self._frames = _Frames(images, "val", input_size, cure, tolerance, board)
        self._size, self._transform = input_size, transform

    def __call__(self, indices: Indices) -> Fetched[EvalBatch]:
        """The images in the order of the numbers, without those that are skipped."""
        loaded = [self._transformed(int(index)) for index in indices]
        self._frames.board.rest()
        made = [result for result in loaded if not isinstance(result, SkippedImage)]
        skipped = tuple(result for result in loaded if isinstance(result, SkippedImage))
        if not made:
            none = torch.empty(0, 3, self._size, self._size, dtype=torch.uint8)
            return Fetched(EvalBatch(none, torch.empty(0, dtype=torch.int64)), skipped)
        return Fetched(EvalBatch(*_stacked(made)), skipped)

    def _transformed(self, index: int) -> tuple[Pixels, int] | SkippedImage:
        found = self._frames.load(index)
        if isinstance(found, SkippedImage):
            return found
        image = self._frames.transform(index, "cannot be transformed", self._transform, found[0])
        return self._frames.pixels(index, image), found[1]


def _stacked(made: list[tuple[Pixels, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    stacked = torch.from_numpy(np.stack([pixels for pixels, _ in made]))
    return stacked.permute(0, 3, 1, 2), torch.tensor([label for _, label in made], dtype=torch.int64)


def _name(augmentation: Any) -> str:
    function = getattr(augmentation, "func", augmentation)  # functools.partial
    return getattr(function, "__name__", type(function).__name__)
