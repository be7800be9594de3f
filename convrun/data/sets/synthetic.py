"""Images made up from their index: a coloured 4×4 pattern for each class, under noise.

For trying things out and for timing: no file, no state, easy to learn. All arithmetic is on integers and the noise
comes from `random.Random`, so every machine makes the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convrun.data.sets.classes import val_notes
from convrun.randomness import derived_seed

CELLS = 4


class SyntheticImages:
    """One split of made-up images; image i has label i mod num_classes."""

    def __init__(self, split: str, images: int, num_classes: int, image_size: int) -> None:
        self._split, self._images, self._num_classes, self._size = split, images, num_classes, image_size
        names, cure = self.class_names, "raise data.train_images"
        self.notes = val_notes("synthetic", names, names[:images], cure) if split == "val" else ()

    def __len__(self) -> int:
        return self._images

    @property
    def class_names(self) -> Sequence[str]:
        """`class 0`, `class 1`, …."""
        return tuple(f"class {label}" for label in range(self._num_classes))

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], int]:
        """Half pattern of its class, half noise of its own: uint8 [image_size, image_size, 3]."""
        label = index % self._num_classes
        pattern = _bytes("pattern", label, CELLS).reshape(CELLS, CELLS, 3)
        cell = np.arange(self._size) * CELLS // self._size
        noise = _bytes(f"{self._split} noise", index, self._size).reshape(self._size, self._size, 3)
        return pattern[cell][:, cell] // 2 + noise // 2, label

    def place(self, index: int) -> str:
        """`synthetic train image 17`."""
        return f"synthetic {self._split} image {index}"


def _bytes(purpose: str, number: int, side: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    drawn = random.Random(derived_seed("synthetic", purpose, number)).randbytes(side * side * 3)
    return np.frombuffer(drawn, dtype=np.uint8)
