"""Makes convrun/assets/digits.npz from scikit-learn's copy of the digits: `python tests/make_digits.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

ASSET = Path(__file__).parents[1] / "convrun" / "assets" / "digits.npz"


def digits_arrays() -> dict[str, Any]:
    """The arrays of the file; convrun/assets/digits.md tells the scaling and the rule of the split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    is_val = np.zeros(len(labels), bool)
    for label in range(10):
        is_val[np.flatnonzero(labels == label)[2::5]] = True
    return {
        "train_images": images[~is_val],
        "train_labels": labels[~is_val],
        "val_images": images[is_val],
        "val_labels": labels[is_val],
        "class_names": np.array([str(label) for label in range(10)]),
    }


if __name__ == "__main__":
    np.savez_compressed(ASSET, **digits_arrays())
