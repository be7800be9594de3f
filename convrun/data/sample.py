"""One sample, in a loader worker: read, decoded, augmented, checked.

What happens to an image that cannot be read (again, skipped, the end of the run) is decided in `Images.load`.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from convrun.contracts.data import BadImage, ImageSet
from convrun.data.decode import UnclearRange, decode, reason_of
from convrun.data.order import replacements
from convrun.data.skipped import SkippedImage
from convrun.data.watchdog import READING, TRANSFORMING, Board
from convrun.errors import ConvrunError, DataError
from convrun.randomness import sample_generator
from convrun.text.wording import printable

ImageAugmentation = Callable[[Image.Image, random.Random], Image.Image]
ImageTransform = Callable[[Image.Image], Image.Image]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Sample = tuple[Pixels, int]
FIRST_PAUSE_SECONDS = 0.1
# If so many drawn at random fail, it is not the images: a disk is gone.
REPLACEMENTS = 10
# What a network file system reports while its server restarts. Not ENOENT and EACCES: those it reports for good.
TRANSIENT = frozenset(
    {
        errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY,
        errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
        errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ENOTCONN, errno.ESHUTDOWN, errno.ENOBUFS,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Tolerance:
    """What is done about images that cannot be read, and about workers that hang: keys of a data section.

    Attributes:
        retries: how often an image is read again after an error that may pass, after 0.1 s, 0.2 s, 0.4 s and so on.
        skips_bad_images: whether others take the place of images that cannot be read.
        timeout_seconds: how long one image may take while training waits for it; None: any time.
    """

    retries: int = 3
    skips_bad_images: bool = False
    timeout_seconds: float | None = 120.0


DEFAULT = Tolerance()


class Images:
    """The images of one split, decoded, with their labels.

    Args:
        images: where they are read from.
        split: `train` or `val`, for messages.
        tolerance: what is done about those that cannot be read.
        board: where a loader worker writes what it is doing, for the watchdog.
    """

    def __init__(
        self, images: ImageSet, split: str, tolerance: Tolerance = DEFAULT, board: Board | None = None
    ) -> None:
        self._images, self._split, self._tolerance, self._board = images, split, tolerance, board or Board(0)
        self._classes, self._grey_range = len(images.class_names), getattr(images, "grey_range", None)
        self._pauses = [FIRST_PAUSE_SECONDS * 2**attempt for attempt in range(tolerance.retries)]

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> tuple[Image.Image, int] | SkippedImage:
        """The image (RGB) and its label; where bad images are skipped, the note about this one.

        Raises:
            DataError: the image is bad and may not be skipped, its label is no class, or something else is wrong.
        """
        for pause in (*self._pauses, None):
            self._board.begin(READING, index)
            try:
                content, label = self._images.read(index)  # waits for the disk
                image = decode(content, self._grey_range)  # most of a worker's time: 2 to 5 ms for 500 × 375 pixels
                break
            except Exception as error:
                if pause is None or not is_transient(error):
                    return self._failed(index, error)
                time.sleep(pause)
        if not 0 <= label < self._classes:  # on a GPU such a label ends in a device-side assert
            raise self.error(index, f"has label {label}", f"labels must lie in 0..{self._classes - 1}")
        return image, label

    def _failed(self, index: int, error: Exception) -> SkippedImage:
        """Only a bad image can be skipped; anything else is raised, with the image's name."""
        if isinstance(error, BadImage | OSError):
            reason = reason_of(error)
            if self._tolerance.skips_bad_images:
                return SkippedImage(self._split, index, self._images.place(index), reason)
            cure = error.cure if isinstance(error, BadImage) else "replace the file, delete it"
            cure = f"{cure}, or set data.bad_images=skip"
            raise self.error(index, f"cannot be decoded: {reason}", cure) from None
        if isinstance(error, UnclearRange):  # never skipped: it would be all images of a kind
            raise self.error(index, str(error), error.cure) from None
        if isinstance(error, MemoryError):
            cure = "lower data.workers or data.prefetch"
            raise DataError(f"{self._name(index)}: no memory left to decode it; {cure}") from None
        if isinstance(error, ConvrunError):
            raise error
        raise self._bug(index, "cannot be loaded", error) from error

    def transformed(self, index: int, trouble: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function that changes an image; an unexpected exception (a plugin's bug, say) gets its name."""
        self._board.begin(TRANSFORMING, index)
        try:
            return function(*arguments)
        except ConvrunError:
            raise
        except Exception as error:
            raise self._bug(index, trouble, error) from error

    def pixels(self, index: int, image: Any, size: int, cure: str) -> Pixels:
        """A finished image as uint8 [size, size, 3]. It is a copy: in PIL's own memory a pixel has four bytes."""
        if not isinstance(image, Image.Image):
            raise self.error(index, f"has become a {type(image).__name__}", "every step must return a PIL image")
        if image.size != (size, size) or image.mode != "RGB":
            found = f"has {image.width}×{image.height} pixels ({image.mode}), not {size}×{size} (RGB)"
            raise self.error(index, found, cure)
        return np.asarray(image)

    def error(self, index: int, what: str, cure: str) -> DataError:
        """What is wrong with an image."""
        return DataError(f"{self._name(index)} {what}; {cure}")

    def _bug(self, index: int, trouble: str, error: Exception) -> DataError:
        what = f"{trouble}: {type(error).__name__}: {error}"
        return self.error(index, what, "run again with --debug to see where")

    def _name(self, index: int) -> str:
        return f"split {self._split}, image {printable(self._images.place(index))}"


def is_transient(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised for, is the operating system's and may pass."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in TRANSIENT:
            return True
        error = error.__cause__ or error.__context__
    return False


class TrainingSamples:
    """Samples of the training split; every draw comes from (seed, epoch, sample number).

    Args:
        images: the split.
        seed: the run's.
        augmentations: applied to each image in turn.
        input_size: height and width that each image must have after them.
    """

    CURE = (
        "give augmentations one that makes all images input_size pixels wide and high (random_resized_crop, say), or "
        "set input_size to the images' own"
    )

    def __init__(self, images: Images, seed: int, augmentations: Sequence[ImageAugmentation], input_size: int) -> None:
        self._images, self._seed, self._size = images, seed, input_size
        self._augmentations = [(f"cannot be augmented by {_name(augment)}", augment) for augment in augmentations]

    def sample(self, epoch: int, index: int, skipped: list[SkippedImage]) -> Sample:
        """Augmented pixels and label; of the first replacement that can be read if the image is bad.

        A replacement is augmented by the draws of the sample that it replaces.
        """
        bad: list[SkippedImage] = []
        for shown in self._candidates(epoch, index):
            found = self._images.load(shown)
            if not isinstance(found, SkippedImage):
                break
            bad.append(found)
        else:
            raise DataError(
                f"split train: of {len(bad)} images drawn at random none can be read, the last is "
                f"{printable(bad[-1].place)}: {bad[-1].reason}; check that the data are still there"
            )
        skipped += bad
        image, label = found
        draws = sample_generator(self._seed, epoch, index)
        for trouble, augment in self._augmentations:
            image = self._images.transformed(shown, trouble, augment, image, draws)
        return self._images.pixels(shown, image, self._size, self.CURE), label

    def _candidates(self, epoch: int, index: int) -> Iterator[int]:
        """The image itself; the others are drawn only if it is bad."""
        yield index
        yield from replacements(self._seed, epoch, index, len(self._images), REPLACEMENTS)


class EvaluationSamples:
    """Samples of the evaluation split.

    Args:
        images: the split.
        transform: brings an image to `input_size`.
        input_size: height and width that each image must have after it.
    """

    CURE = "the evaluation transform must give input_size"

    def __init__(self, images: Images, transform: ImageTransform, input_size: int) -> None:
        self._images, self._transform, self._size = images, transform, input_size

    def sample(self, index: int) -> Sample | SkippedImage:
        """Pixels and label; nothing can replace a bad image here, so it is left out."""
        found = self._images.load(index)
        if isinstance(found, SkippedImage):
            return found
        image = self._images.transformed(index, "cannot be transformed", self._transform, found[0])
        return self._images.pixels(index, image, self._size, self.CURE), found[1]


def _name(augmentation: Any) -> str:
    function = getattr(augmentation, "func", augmentation)  # functools.partial
    return getattr(function, "__name__", type(function).__name__)
