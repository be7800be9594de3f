"""Staged ConvNeXt models, built from timm's class, so that weights have timm's names."""

from __future__ import annotations

from timm.models.convnext import ConvNeXt
from torch import nn

from convrun.models.shapes import Shape


def staged(
    shape: Shape,
    num_classes: int,
    drop_path_rate: float,
    layer_scale_init: float | None,
    drop_rate: float,
) -> nn.Module:
    """A ConvNeXt of four stages, of this shape, with new weights."""
    # Not timm.create_model, which drops arguments that are None, so that layer scale could not be turned off.
    model: nn.Module = ConvNeXt(
        num_classes=num_classes,
        depths=shape.depths,
        dims=shape.dims,
        kernel_sizes=shape.kernel_size,
        ls_init_value=layer_scale_init,
        conv_mlp=shape.conv_mlp,
        use_grn=shape.use_grn,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
    )
    if shape.patch_size != 4:
        _replace_stem(model, shape)
    return model


def _replace_stem(model: nn.Module, shape: Shape) -> None:
    """Replaces the stem by one of another patch size.

    timm would also change the stages (a downsample in the first at 2, dilation from 8 on) to keep its output stride.
    """
    stem = nn.Conv2d(3, shape.dims[0], shape.patch_size, stride=shape.patch_size)
    nn.init.trunc_normal_(stem.weight, std=0.02)
    assert stem.bias is not None
    nn.init.zeros_(stem.bias)
    model.get_submodule("stem").register_module("0", stem)
