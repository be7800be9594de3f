"""What a loader worker does: from sample numbers to a batch of uint8 images, each checked and named in errors."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from convrun.data.image_set import ImageSet
from convrun.data.order import Indices, Position
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


class TrainFetch:
    """Makes the micro-batch of a position: loads each image and applies the augmentations."""

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
        """Every draw comes from (seed, epoch, sample number)."""
        made = [self._augmented(position.epoch, int(index)) for index in position.indices]
        return MicroBatch(position.step, position.number, position.epoch, *_stacked(made))

    def _augmented(self, epoch: int, index: int) -> tuple[Pixels, int]:
        image, label = self._frames.load(index)
        draws = sample_generator(self._seed, epoch, index)
        for augment in self._augmentations:
            image = self._frames.attempt(index, f"cannot be augmented by {_name(augment)}", augment, image, draws)
        return self._frames.pixels(index, image), label


class EvalFetch:
    """Makes the evaluation batch of some sample numbers."""

    def __init__(self, images: ImageSet, transform: ImageTransform, input_size: int) -> None:
        self._frames = _Frames(images, "val", input_size, "the evaluation transform must give input_size")
        self._transform = transform

    def __call__(self, indices: Indices) -> EvalBatch:
        """The images in the order of the numbers."""
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
