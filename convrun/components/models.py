"""Models: ConvNeXt V1 and V2 by name or by shape, and any model of timm.

All staged models are timm's `ConvNeXt` class, so weights carry timm's key names. The number of parameters follows
from the shape alone; a recipe can be checked against a checkpoint without torch.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from convrun.errors import KeyProblem
from convrun.keys import Fraction, Limits, NonNegativeFloat, PositiveFloat, PositiveInt
from convrun.registry import register

if TYPE_CHECKING:
    from torch import nn

PerStage = Annotated[tuple[PositiveInt, ...], Limits(min_length=4, max_length=4)]


@dataclasses.dataclass(frozen=True)
class Shape:
    """What fixes a staged ConvNeXt's weights, but for its head and layer scale.

    Attributes:
        depths: blocks a stage.
        dims: channels a stage.
        patch_size: side and stride of the stem's convolution, in pixels.
        kernel_size: side of the depthwise convolutions.
        use_grn: global response normalization (V2).
        conv_mlp: 1x1 convolutions for linear layers; the same numbers in 4-d weights, as timm stores small models.
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
        blocks = sum(n * self._block(c, has_layer_scale) for n, c in zip(self.depths, self.dims, strict=True))
        head = 2 * self.dims[-1] + (self.dims[-1] + 1) * num_classes
        return stem + between + blocks + head

    def _block(self, channels: int, has_layer_scale: bool) -> int:
        depthwise = channels * (self.kernel_size**2 + 1)
        norm = 2 * channels
        mlp = 8 * channels**2 + 5 * channels
        return depthwise + norm + mlp + 8 * channels * self.use_grn + channels * has_layer_scale


_V1 = {
    "convnext_tiny": Shape((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": Shape((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": Shape((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_large": Shape((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnext_xlarge": Shape((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
_SMALLER = {
    "atto": Shape((2, 2, 6, 2), (40, 80, 160, 320), conv_mlp=True),
    "femto": Shape((2, 2, 6, 2), (48, 96, 192, 384), conv_mlp=True),
    "pico": Shape((2, 2, 6, 2), (64, 128, 256, 512), conv_mlp=True),
    "nano": Shape((2, 2, 8, 2), (80, 160, 320, 640), conv_mlp=True),
}
_V2 = {
    **_SMALLER,
    **{size: _V1[f"convnext_{size}"] for size in ("tiny", "base", "large")},
    "huge": Shape((3, 3, 27, 3), (352, 704, 1408, 2816)),
}

_MEANINGS = {
    "drop_path_rate": "probability to skip the last block for an image; earlier blocks rise to it linearly from 0",
    "layer_scale_init": "start value of each block's per-channel scale; null: no layer scale",
    "head_init_scale": "factor on the head's initial weights and bias; no effect on a head that is loaded",
    "drop_rate": "probability to drop a feature before the head",
}


def _docstring(summary: str, *keys: str) -> str:
    return "\n\n".join([summary, "\n".join(f"{key}: {_MEANINGS[key]}" for key in keys)])


def _register_v1(name: str, shape: Shape, source: str) -> None:
    def build(
        num_classes: int,
        *,
        drop_path_rate: Fraction = 0.0,
        layer_scale_init: NonNegativeFloat | None = 1e-6,
        head_init_scale: PositiveFloat = 1.0,
        drop_rate: Fraction = 0.0,
    ) -> nn.Module:
        return _staged(shape, num_classes, drop_path_rate, layer_scale_init, head_init_scale, drop_rate)

    def parameters(num_classes: int, *, layer_scale_init: float | None = 1e-6, **others: Any) -> int:
        return shape.parameters(num_classes, layer_scale_init is not None)

    _file(build, name, shape, source, parameters)


def _register_v2(name: str, shape: Shape) -> None:
    def build(
        num_classes: int,
        *,
        drop_path_rate: Fraction = 0.0,
        head_init_scale: PositiveFloat = 1.0,
        drop_rate: Fraction = 0.0,
    ) -> nn.Module:
        return _staged(shape, num_classes, drop_path_rate, None, head_init_scale, drop_rate)

    def parameters(num_classes: int, **others: Any) -> int:
        return shape.parameters(num_classes, False)

    _file(build, name, shape, "arXiv:2301.00808, section 5", parameters)


def _file(
    build: Callable[..., nn.Module], name: str, shape: Shape, source: str, parameters: Callable[..., int]
) -> None:
    version, size = ("V2 " if shape.use_grn else ""), name.partition("_")[2]
    depths, dims = ("-".join(map(str, numbers)) for numbers in (shape.depths, shape.dims))
    millions = parameters(1000) / 1e6
    summary = f"ConvNeXt {version}{size}: {depths} blocks, {dims} channels, {millions:.1f} M parameters ({source})."
    build.__name__ = build.__qualname__ = name
    build.__doc__ = _docstring(summary, *(build.__kwdefaults__ or {}))
    register("model", name, parameters=parameters)(build)


for _name, _shape in _V1.items():
    _register_v1(_name, _shape, "arXiv:2201.03545, section 3")
for _size, _shape in _SMALLER.items():
    _register_v1(f"convnext_{_size}", _shape, "timm, after arXiv:2301.00808, section 5")
for _size, _shape in _V2.items():
    _register_v2(f"convnextv2_{_size}", dataclasses.replace(_shape, use_grn=True))


def _check_shape(*, depths: tuple[int, ...], dims: tuple[int, ...], kernel_size: int = 7, **others: Any) -> None:
    for key, numbers in (("depths", depths), ("dims", dims)):
        if len(numbers) != 4:
            raise KeyProblem(key, f"a staged ConvNeXt has 4 stages, not {len(numbers)}", "give 4 numbers")
    if kernel_size % 2 == 0:
        message = f"a kernel of {kernel_size} has no centre, so a block's output would not fit its input"
        raise KeyProblem("kernel_size", message, f"use {kernel_size - 1} or {kernel_size + 1}")


def _count_free(
    num_classes: int,
    *,
    depths: tuple[int, ...],
    dims: tuple[int, ...],
    patch_size: int = 4,
    kernel_size: int = 7,
    layer_scale_init: float | None = 1e-6,
    use_grn: bool = False,
    **others: Any,
) -> int:
    shape = Shape(tuple(depths), tuple(dims), patch_size, kernel_size, use_grn)
    return shape.parameters(num_classes, layer_scale_init is not None)


@register("model", "convnext", parameters=_count_free, check=_check_shape)
def convnext(
    num_classes: int,
    *,
    depths: PerStage,
    dims: PerStage,
    patch_size: PositiveInt = 4,
    kernel_size: PositiveInt = 7,
    layer_scale_init: NonNegativeFloat | None = 1e-6,
    use_grn: bool = False,
    drop_path_rate: Fraction = 0.0,
    head_init_scale: PositiveFloat = 1.0,
    drop_rate: Fraction = 0.0,
) -> nn.Module:
    """A ConvNeXt of free shape (arXiv:2201.03545, section 2; V2's blocks: arXiv:2301.00808, section 4).

    depths: blocks in each of the 4 stages
    dims: channels in each of the 4 stages
    patch_size: side and stride in pixels of the stem's convolution; 1 or 2 suit images of 32 pixels
    kernel_size: side of the depthwise convolutions, odd
    layer_scale_init: start value of each block's per-channel scale; null: no layer scale, as in V2
    use_grn: global response normalization in each block, as in V2
    drop_path_rate: probability to skip the last block for an image; earlier blocks rise to it linearly from 0
    head_init_scale: factor on the head's initial weights and bias; no effect on a head that is loaded
    drop_rate: probability to drop a feature before the head
    """
    _check_shape(depths=depths, dims=dims, kernel_size=kernel_size)
    shape = Shape(tuple(depths), tuple(dims), patch_size, kernel_size, use_grn)
    return _staged(shape, num_classes, drop_path_rate, layer_scale_init, head_init_scale, drop_rate)


def _staged(
    shape: Shape,
    num_classes: int,
    drop_path_rate: float,
    layer_scale_init: float | None,
    head_init_scale: float,
    drop_rate: float,
) -> nn.Module:
    from timm.models.convnext import ConvNeXt

    # The class and not timm.create_model, which drops keys that are None: layer scale could not be turned off.
    model: nn.Module = ConvNeXt(
        num_classes=num_classes,
        depths=shape.depths,
        dims=shape.dims,
        kernel_sizes=shape.kernel_size,
        ls_init_value=layer_scale_init,
        head_init_scale=head_init_scale,
        conv_mlp=shape.conv_mlp,
        use_grn=shape.use_grn,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
    )
    if shape.patch_size != 4:
        _replace_stem(model, shape)
    return model


def _replace_stem(model: nn.Module, shape: Shape) -> None:
    """Puts in a stem of another patch size; timm would also change the stages (a downsample in the first at 2,
    dilation from 8 on) to keep its output stride.
    """
    from torch import nn

    stem = nn.Conv2d(3, shape.dims[0], shape.patch_size, stride=shape.patch_size)
    nn.init.trunc_normal_(stem.weight, std=0.02)
    assert stem.bias is not None
    nn.init.zeros_(stem.bias)
    model.get_submodule("stem").register_module("0", stem)


@register("model", "timm/*")
def timm_model(
    name: str,
    num_classes: int,
    *,
    drop_rate: Fraction | None = None,
    drop_path_rate: Fraction | None = None,
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """Any model of timm by its name there, with new weights: timm/resnet50, timm/vit_small_patch16_224 (timm.models).

    drop_rate: probability to drop a feature before the head; null: the model's own default
    drop_path_rate: probability to skip the last block for an image; null: the model's own default
    options: further arguments of that model, by its own names
    """
    import timm

    options = options or {}
    _check_timm(name, options)
    try:
        model: nn.Module = timm.create_model(
            name, num_classes=num_classes, drop_rate=drop_rate, drop_path_rate=drop_path_rate, **options
        )
    except TypeError as error:
        refused = [key for key in ("drop_rate", "drop_path_rate") if f"'{key}'" in str(error)]
        raise KeyProblem(refused[0] if refused else "options", f"timm/{name} refuses it: {error}") from error
    return model


def _check_timm(name: str, options: dict[str, Any]) -> None:
    import timm

    known = timm.list_models()
    if name not in known:
        plain = name.partition(".")[0]
        nearest = [plain] if plain in known else difflib.get_close_matches(name, known, 3)
        cure = f"did you mean {' or '.join(f'timm/{n}' for n in nearest)}?" if nearest else ""
        if plain in nearest:
            cure = f"write timm/{plain} and name the weights under init"
        raise KeyProblem("name", f"timm has no model named {name!r}", cure)
    for key in ("pretrained", "num_classes", "drop_rate", "drop_path_rate", "checkpoint_path"):
        if key in options:
            message = f"{key} is not an option: weights come from init, classes from data, drop rates are keys"
            raise KeyProblem("options", message, "leave it out")
