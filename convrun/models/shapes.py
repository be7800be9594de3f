"""The shapes of ConvNeXt models and their exact numbers of parameters, without torch."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Shape:
    """What determines a staged ConvNeXt's weights, except for its head and layer scale.

    Attributes:
        depths: blocks per stage.
        dims: channels per stage.
        patch_size: side and stride of the stem's convolution, in pixels.
        kernel_size: side of the depthwise convolutions.
        use_grn: global response normalization (V2).
        conv_mlp: 1x1 convolutions instead of linear layers: the same values in 4-d weights, as in timm's small models.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    patch_size: int = 4
    kernel_size: int = 7
    use_grn: bool = False
    conv_mlp: bool = False

    def parameters(self, num_classes: int, has_layer_scale: bool) -> int:
        """The number of trainable values (biases and norms included)."""
        stem = self.dims[0] * (3 * self.patch_size**2 + 3)
        between = sum(2 * a + 4 * a * b + b for a, b in zip(self.dims, self.dims[1:], strict=False))
        blocks = sum(n * self.block(c, has_layer_scale) for n, c in zip(self.depths, self.dims, strict=True))
        head = 2 * self.dims[-1] + (self.dims[-1] + 1) * num_classes
        return stem + between + blocks + head

    @property
    def smallest_input(self) -> int:
        """The smallest height and width of an image in pixels: the stem and three downsamplings reduce it to 1 × 1.

        Each divides by its stride and rounds down. Blocks keep the size, their kernels may be larger than it (they
        pad), and layer norms are over channels, so the model can be trained at 1 × 1.
        """
        return self.patch_size << (len(self.depths) - 1)

    def block(self, channels: int, has_layer_scale: bool) -> int:
        """The trainable values of one block."""
        depthwise = channels * (self.kernel_size**2 + 1)
        norm = 2 * channels
        mlp = 8 * channels**2 + 5 * channels
        return depthwise + norm + mlp + 8 * channels * self.use_grn + channels * has_layer_scale


V1: dict[str, Shape] = {
    "convnext_tiny": Shape((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": Shape((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": Shape((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_large": Shape((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnext_xlarge": Shape((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
SMALLER: dict[str, Shape] = {
    "atto": Shape((2, 2, 6, 2), (40, 80, 160, 320), conv_mlp=True),
    "femto": Shape((2, 2, 6, 2), (48, 96, 192, 384), conv_mlp=True),
    "pico": Shape((2, 2, 6, 2), (64, 128, 256, 512), conv_mlp=True),
    "nano": Shape((2, 2, 8, 2), (80, 160, 320, 640), conv_mlp=True),
}
V2: dict[str, Shape] = {
    **SMALLER,
    **{size: V1[f"convnext_{size}"] for size in ("tiny", "base", "large")},
    "huge": Shape((3, 3, 27, 3), (352, 704, 1408, 2816)),
}


@dataclasses.dataclass(frozen=True)
class IsotropicShape:
    """What determines an isotropic ConvNeXt's weights, except for its head and layer scale.

    Attributes:
        depth: blocks.
        dim: channels of every block.
        patch_size: side and stride of the stem's convolution, in pixels.
        has_layer_scale: whether the paper trains it with a layer scale, which then starts at 1e-6.
    """

    depth: int
    dim: int
    patch_size: int = 16
    has_layer_scale: bool = False

    @property
    def smallest_input(self) -> int:
        """The smallest height and width of an image in pixels: one patch."""
        return self.patch_size

    def parameters(self, num_classes: int, has_layer_scale: bool) -> int:
        """The number of trainable values (biases and norms included)."""
        block = Shape((self.depth,), (self.dim,)).block(self.dim, has_layer_scale)
        stem = self.dim * (3 * self.patch_size**2 + 1)
        return stem + self.depth * block + 2 * self.dim + (self.dim + 1) * num_classes


ISOTROPIC: dict[str, IsotropicShape] = {
    "convnext_isotropic_small": IsotropicShape(18, 384),
    "convnext_isotropic_base": IsotropicShape(18, 768),
    "convnext_isotropic_large": IsotropicShape(36, 1024, has_layer_scale=True),
}
