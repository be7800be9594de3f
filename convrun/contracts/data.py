"""Data sets: what a plan must know of them, what a split provides, and the keys that all of them take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from convrun.contracts.kind import Kind
from convrun.errors import DataError
from convrun.keys import Limits, NonNegativeInt, PositiveFloat, PositiveInt

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    # An image as it is stored: encoded (JPEG, PNG, ...), uint8 [h, w] (grey) or [h, w, 3], or a PIL image.
    Content = bytes | npt.NDArray[np.uint8] | Image.Image

# The values that are black and white in grey images with more than 8 bits.
GreyRange = tuple[float, float]


@dataclass(frozen=True)
class DataFacts:
    """What the plan must know of a data set."""

    num_classes: int
    train_images: int
    val_images: int


class BadImage(DataError):
    """An image cannot be read, even after retries; `data.bad_images` decides what happens then.

    Attributes:
        reason: why, without the image's name.
        cure: what the user can do about the image, beside skipping it.
    """

    def __init__(self, reason: str, cure: str = "replace the file, delete it") -> None:
        super().__init__(reason)
        self.reason, self.cure = reason, cure


class ImageSet(Protocol):
    """One split of a data set: images as they are stored, with labels in `range(len(class_names))`, found by index.

    Both splits have the same `class_names`, those of train; val need not have images of all of them.

    It is copied into loader workers, so it must be picklable, and `read` must not draw random numbers. convrun decodes
    the images, and retries or skips those that cannot be read. The set may have two attributes more:
    `grey_range: GreyRange | None`; without it, and with None, the range is 0 to 65,535. And `notes: Sequence[str]`,
    lines for the user about what it found and does not use; `validate --data` and the start of a run show them.
    """

    def __len__(self) -> int:
        """The number of images."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """One name per label, the same in both splits."""
        ...

    def read(self, index: int) -> tuple[Content, int]:
        """The image as it is stored (encoded bytes; uint8 [h, w] or [h, w, 3]; a PIL image), and its label.

        Raises:
            BadImage: this image cannot be read. An OSError counts as one; if it may be transient, convrun reads again.
            DataError: something else is wrong, which ends the run whatever `data.bad_images` says.
        """
        ...

    def place(self, index: int) -> str:
        """Where the image is, for messages: a path, or `digits.npz train image 17`."""
        ...


def notes_of(*splits: ImageSet) -> list[str]:
    """The lines that some splits have for the user, each once."""
    return list(dict.fromkeys(line for images in splits for line in getattr(images, "notes", ())))


Statistics = Annotated[tuple[float, ...], Limits(min_length=3, max_length=3)]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Keys by which a recipe may declare the sizes and the format of a data set on a disk.
NumClasses = Annotated[
    PositiveInt | None,
    "number of classes; if all three numbers are declared, the disk is not read before the run starts",
]
TrainImages = Annotated[PositiveInt | None, "number of training images"]
ValImages = Annotated[PositiveInt | None, "number of validation images"]
WrittenGreyRange = Annotated[
    Literal["auto"] | GreyRange,
    "the values that are black and white in grey images with more than 8 bits, such as [0, 4095]; auto: 0 and "
    "65535, and an error if almost nothing of an image would be left",
]


@dataclass(frozen=True)
class DataSettings:
    """Keys that every data section takes besides the data set's own.

    mean: per-channel mean (red, green, blue; pixel values in 0..1) that is subtracted
    std: per-channel standard deviation (same scale) that the difference is divided by
    workers: loader processes for each training process; auto: its share of the machine's cores, at most 8
    prefetch: micro-batches each worker keeps ready
    bad_images: what happens if an image cannot be read: `error` ends the run; `skip` trains on another one in its
        place, drawn from (seed, epoch, sample), evaluates without it, and lists it in skipped_images.jsonl
    bad_images_limit: how many images of each split may be skipped before the run ends: a number, or a share below 1
    retries: how often an image is read again after a transient error (input/output error, stale file handle, time-out
        of a network file system, ...), after 0.1 s, 0.2 s, 0.4 s and so on
    timeout: seconds that training waits for one image before the run ends and names it; null: no limit. With
        workers: 0 there is no limit either, because training reads the images itself
    """

    mean: Statistics = IMAGENET_MEAN
    std: Statistics = IMAGENET_STD
    workers: NonNegativeInt | Literal["auto"] = "auto"
    prefetch: PositiveInt = 2
    bad_images: Literal["error", "skip"] = "error"
    bad_images_limit: PositiveInt | Annotated[float, Limits(gt=0, lt=1)] = 0.01
    retries: NonNegativeInt = 3
    timeout: PositiveFloat | None = 120.0


DATA = Kind(
    name="data",
    module="convrun.components.data",
    section="data",
    receives={"split": "'train' or 'val'"},
    returns=ImageSet,
    settings=DataSettings,
    required_meta={"facts": "function(**keys) -> DataFacts(num_classes, train_images, val_images), without torch"},
    optional_meta={"measure": "function(**keys) -> DataFacts found on the disk, whatever the recipe declares"},
)
