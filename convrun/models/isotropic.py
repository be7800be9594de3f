"""The isotropic ConvNeXt (arXiv:2201.03545, section 3.3): one resolution, one width, like a plain ViT."""

from __future__ import annotations

import torch
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from convrun.models.shapes import IsotropicShape


class IsotropicConvNeXt(nn.Module):
    """A patch stem without norm, equal blocks, then average pool, LayerNorm and head.

    Args:
        shape: depth, width and patch size.
        num_classes: size of the head.
        drop_path_rate: of the last block; block i of n has linspace(0, rate, n)[i].
        layer_scale_init: initial value of each block's per-channel scale; None: no layer scale.
    """

    def __init__(
        self,
        shape: IsotropicShape,
        num_classes: int,
        drop_path_rate: float = 0.0,
        layer_scale_init: float | None = None,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, shape.dim, shape.patch_size, stride=shape.patch_size)
        rates = torch.linspace(0, drop_path_rate, shape.depth, device="cpu").tolist()
        self.blocks = nn.Sequential(
            *(ConvNeXtBlock(shape.dim, ls_init_value=layer_scale_init, drop_path=rate) for rate in rates)
        )
        self.norm = nn.LayerNorm(shape.dim, eps=1e-6)
        self.head = nn.Linear(shape.dim, num_classes)
        self.apply(_initialise)

    def get_classifier(self) -> nn.Linear:
        """The head, under the name that timm's models use."""
        return self.head

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, 3, height, width] -> logits [n, num_classes]."""
        features: Tensor = self.blocks(self.stem(images))
        logits: Tensor = self.head(self.norm(features.mean((-2, -1))))
        return logits


def _initialise(module: nn.Module) -> None:
    """Truncated normal of std 0.02 for convolutions and linear layers, zero biases (arXiv:2201.03545, Appendix A)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
