"""On real JPEGs, from file to the model's input: convrun's evaluation equals the released pipeline's.

The photographs are the two that ship with scikit-learn (640 × 427). The released pipeline, with torchvision: below 384
Resize(int(size / 0.875), bicubic) and CenterCrop(size), from 384 on Resize((size, size), bicubic); ToTensor; Normalize.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import transforms
from torchvision.datasets.folder import pil_loader

from convrun.augment.crops import evaluation_transform
from convrun.augment.evaluation_geometry import default_crop_ratio
from convrun.contracts.data import IMAGENET_MEAN, IMAGENET_STD
from convrun.data.decode import decode

PHOTOS = [Path(str(files("sklearn") / "datasets" / "images" / name)) for name in ("china.jpg", "flower.jpg")]
BICUBIC = transforms.InterpolationMode.BICUBIC


def released(size: int) -> transforms.Compose:
    if size >= 384:
        geometry = [transforms.Resize((size, size), interpolation=BICUBIC)]
    else:
        geometry = [transforms.Resize(int(size / 0.875), interpolation=BICUBIC), transforms.CenterCrop(size)]
    return transforms.Compose([*geometry, transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])


@pytest.mark.parametrize("size", [224, 384])
@pytest.mark.parametrize("photo", PHOTOS, ids=lambda p: p.stem)
def test_evaluation_input_equals_the_released_pipelines(photo, size):
    ours = evaluation_transform(size, default_crop_ratio(size), "bicubic")(decode(photo.read_bytes()))
    theirs = released(size)(pil_loader(str(photo)))
    pixels = torch.from_numpy(np.array(ours)).permute(2, 0, 1)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    back = (theirs * std + mean) * 255
    assert torch.equal(pixels, back.round().to(torch.uint8))
    # Trainer.inputs computes (x / 255 − mean) / std in the same order.
    torch.testing.assert_close(pixels.float().div(255).sub(mean).div(std), theirs, rtol=0, atol=1e-6)
