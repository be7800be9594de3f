"""Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899) of a micro-batch with itself in reverse order, on the device.

One λ is drawn for the whole micro-batch, and image i is mixed with image n-1-i, as in the released ConvNeXt code.
"""

from __future__ import annotations

import dataclasses
import math
import random
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from convrun.randomness import Draws

Rectangle = tuple[int, int, int, int]


def mixup(images: torch.Tensor, lam: float) -> torch.Tensor:
    """λ·images + (1-λ)·reversed images, for images [n, 3, h, w]; a new tensor."""
    return images.flip(0).mul_(1 - lam).add_(images * lam)


def cutmix(images: torch.Tensor, box: Rectangle) -> torch.Tensor:
    """The images [n, 3, h, w] with the box (top, left, bottom, right) of the reversed images; a new tensor."""
    top, left, bottom, right = box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].flip(0)
    return mixed


def cutmix_box(height: int, width: int, lam: float, centre_y: int, centre_x: int) -> Rectangle:
    """The box (top, left, bottom, right) whose area is 1-λ of the image, clipped at the border."""
    ratio = math.sqrt(1 - lam)
    box_height, box_width = int(height * ratio), int(width * ratio)
    top, bottom = max(centre_y - box_height // 2, 0), min(centre_y + (box_height + 1) // 2, height)
    left, right = max(centre_x - box_width // 2, 0), min(centre_x + (box_width + 1) // 2, width)
    return top, left, bottom, right


def kept_share(height: int, width: int, box: Rectangle) -> float:
    """CutMix's true λ: the share of the image outside the box."""
    top, left, bottom, right = box
    return 1 - (bottom - top) * (right - left) / (height * width)


def soft_targets(targets: torch.Tensor, num_classes: int) -> torch.Tensor:
    """One-hot rows [n, num_classes] of class numbers [n]; rows that are soft already stay as they are."""
    if targets.ndim == 2:
        return targets
    # Not torch's one_hot, which looks at the values and so may wait for the device.
    rows = torch.zeros(len(targets), num_classes, device=targets.device)
    return rows.scatter_(1, targets[:, None], 1.0)


def mixed_targets(targets: torch.Tensor, lam: float, num_classes: int) -> torch.Tensor:
    """λ·targets + (1-λ)·reversed targets, as soft rows [n, num_classes].

    Label smoothing is not applied here. It is linear, so it can follow the mixing: the loss turns a row t into
    (1-s)·t + s/K, which for a class number is 1-s+s/K on the class and s/K elsewhere, mixed by the same λ.
    """
    rows = soft_targets(targets, num_classes)
    return rows * lam + rows.flip(0) * (1 - lam)


@dataclasses.dataclass(frozen=True)
class MixupCutmix:
    """Mixes each micro-batch by Mixup or CutMix. All draws are scalars from `draws.host`, so none waits for the device.

    Attributes:
        num_classes: length of a target row.
        mixup_alpha: λ of Mixup comes from Beta(alpha, alpha); 0: CutMix only.
        cutmix_alpha: λ of CutMix likewise; 0: Mixup only.
        probability: chance that a micro-batch is mixed.
        switch_probability: chance of CutMix where both are on.
    """

    num_classes: int
    mixup_alpha: float
    cutmix_alpha: float
    probability: float
    switch_probability: float

    def __call__(self, images: torch.Tensor, targets: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixed images and soft targets [n, num_classes]; targets are soft even where nothing is mixed."""
        lam, box = self.draw(images.shape[-2], images.shape[-1], draws.host)
        if box is not None:
            images = cutmix(images, box)
        elif lam < 1:
            images = mixup(images, lam)
        return images, mixed_targets(targets, lam, self.num_classes)

    def draw(self, height: int, width: int, draws: random.Random) -> tuple[float, Rectangle | None]:
        """λ and, for CutMix, the box; λ = 1 without a box leaves the images as they are."""
        if draws.random() >= self.probability:
            return 1.0, None
        if not self._is_cutmix(draws):
            return draws.betavariate(self.mixup_alpha, self.mixup_alpha), None
        lam = draws.betavariate(self.cutmix_alpha, self.cutmix_alpha)
        box = cutmix_box(height, width, lam, draws.randrange(height), draws.randrange(width))
        return kept_share(height, width, box), box

    def _is_cutmix(self, draws: random.Random) -> bool:
        if self.mixup_alpha > 0 and self.cutmix_alpha > 0:
            return draws.random() < self.switch_probability
        return self.cutmix_alpha > 0
