"""The models a recipe can name: ConvNeXt V1 and V2 by name or by shape, the isotropic ones, and any model of timm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convrun.contracts.model import Depths, Dims, DropPathRate, DropRate, LayerScaleInit
from convrun.errors import KeyProblem
from convrun.keys import Fraction, PositiveInt
from convrun.models.shapes import ISOTROPIC, SMALLER, V1, V2, IsotropicShape, Shape
from convrun.registry import register

if TYPE_CHECKING:
    from torch import nn


def _register_v1(name: str, shape: Shape, source: str) -> None:
    def build(
        num_classes: int,
        *,
        drop_path_rate: DropPathRate = 0.0,
        layer_scale_init: LayerScaleInit = 1e-6,
        drop_rate: DropRate = 0.0,
    ) -> nn.Module:
        return _built(shape, num_classes, drop_path_rate, layer_scale_init, drop_rate)

    def parameters(num_classes: int, *, layer_scale_init: float | None = 1e-6, **others: Any) -> int:
        return shape.parameters(num_classes, layer_scale_init is not None)

    _file(build, name, shape, source, parameters)


def _register_v2(name: str, shape: Shape) -> None:
    def build(
        num_classes: int,
        *,
        drop_path_rate: DropPathRate = 0.0,
        drop_rate: DropRate = 0.0,
    ) -> nn.Module:
        return _built(shape, num_classes, drop_path_rate, None, drop_rate)

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
    build.__doc__ = summary
    register("model", name, parameters=parameters, smallest_input=lambda **keys: shape.smallest_input)(build)


for _name, _shape in V1.items():
    _register_v1(_name, _shape, "arXiv:2201.03545, section 3")
for _size, _shape in SMALLER.items():
    _register_v1(f"convnext_{_size}", _shape, "timm, after arXiv:2301.00808, section 5")
for _size, _shape in V2.items():
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


def _smallest_free(*, depths: tuple[int, ...], dims: tuple[int, ...], patch_size: int = 4, **others: Any) -> int:
    return Shape(tuple(depths), tuple(dims), patch_size).smallest_input


@register("model", "convnext", parameters=_count_free, check=_check_shape, smallest_input=_smallest_free)
def convnext(
    num_classes: int,
    *,
    depths: Depths,
    dims: Dims,
    patch_size: PositiveInt = 4,
    kernel_size: PositiveInt = 7,
    layer_scale_init: LayerScaleInit = 1e-6,
    use_grn: bool = False,
    drop_path_rate: DropPathRate = 0.0,
    drop_rate: DropRate = 0.0,
) -> nn.Module:
    """A ConvNeXt of any shape (arXiv:2201.03545, section 2; V2's blocks: arXiv:2301.00808, section 4).

    patch_size: side and stride in pixels of the stem's convolution; 1 or 2 suit images of 32 pixels
    kernel_size: side of the depthwise convolutions, odd
    use_grn: global response normalization in each block, as in V2
    """
    _check_shape(depths=depths, dims=dims, kernel_size=kernel_size)
    shape = Shape(tuple(depths), tuple(dims), patch_size, kernel_size, use_grn)
    return _built(shape, num_classes, drop_path_rate, layer_scale_init, drop_rate)


def _built(
    shape: Shape,
    num_classes: int,
    drop_path_rate: float,
    layer_scale_init: float | None,
    drop_rate: float,
) -> nn.Module:
    from convrun.models.staged import staged

    return staged(shape, num_classes, drop_path_rate, layer_scale_init, drop_rate)


def _register_isotropic(name: str, shape: IsotropicShape) -> None:
    default = 1e-6 if shape.has_layer_scale else None

    def build(
        num_classes: int,
        *,
        drop_path_rate: DropPathRate = 0.0,
        layer_scale_init: LayerScaleInit = default,
    ) -> nn.Module:
        from convrun.models.isotropic import IsotropicConvNeXt

        return IsotropicConvNeXt(shape, num_classes, drop_path_rate, layer_scale_init)

    def parameters(num_classes: int, *, layer_scale_init: float | None = default, **others: Any) -> int:
        return shape.parameters(num_classes, layer_scale_init is not None)

    size, millions = name.rpartition("_")[2], parameters(1000) / 1e6
    build.__name__ = build.__qualname__ = name
    summary = f"Isotropic ConvNeXt {size}: {shape.depth} blocks of {shape.dim} channels, {millions:.1f} M parameters"
    build.__doc__ = f"{summary} (arXiv:2201.03545, section 3.3)."
    register("model", name, parameters=parameters, smallest_input=lambda **keys: shape.smallest_input)(build)


def _count_free_isotropic(
    num_classes: int,
    *,
    depth: int,
    dim: int,
    patch_size: int = 16,
    layer_scale_init: float | None = None,
    **others: Any,
) -> int:
    return IsotropicShape(depth, dim, patch_size).parameters(num_classes, layer_scale_init is not None)


def _smallest_free_isotropic(*, depth: int, dim: int, patch_size: int = 16, **others: Any) -> int:
    return IsotropicShape(depth, dim, patch_size).smallest_input


@register("model", "convnext_isotropic", parameters=_count_free_isotropic, smallest_input=_smallest_free_isotropic)
def convnext_isotropic(
    num_classes: int,
    *,
    depth: PositiveInt,
    dim: PositiveInt,
    patch_size: PositiveInt = 16,
    layer_scale_init: LayerScaleInit = None,
    drop_path_rate: DropPathRate = 0.0,
) -> nn.Module:
    """An isotropic ConvNeXt of any shape: blocks of one width at one resolution (arXiv:2201.03545, section 3.3).

    depth: blocks
    dim: channels of every block
    patch_size: side and stride in pixels of the stem's convolution
    """
    from convrun.models.isotropic import IsotropicConvNeXt

    return IsotropicConvNeXt(IsotropicShape(depth, dim, patch_size), num_classes, drop_path_rate, layer_scale_init)


for _name, _isotropic in ISOTROPIC.items():
    _register_isotropic(_name, _isotropic)


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

    drop_rate: probability of dropping a feature before the head; null: the model's own default
    drop_path_rate: probability of skipping the last block for an image; null: the model's own default
    options: further arguments of that model, by its own names
    """
    import timm

    options = options or {}
    _check_timm(name, options)
    try:
        model: nn.Module = timm.create_model(
            name, num_classes=num_classes, drop_rate=drop_rate, drop_path_rate=drop_path_rate, **options
        )
    except Exception as error:  # a model's options may fail in any way
        refused = [key for key in ("drop_rate", "drop_path_rate") if f"'{key}'" in str(error)]
        if not refused and not options:
            raise
        reason = str(error) if isinstance(error, TypeError) else f"{type(error).__name__}: {error}"
        key = refused[0] if refused else "options"
        raise KeyProblem(key, f"timm/{name} refuses {key}: {reason}", f"correct or remove model.{key}") from error
    return model


def _check_timm(name: str, options: dict[str, Any]) -> None:
    import difflib

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
            message = f"{key} is not an option: weights come from init, classes from data, and drop rates are keys"
            raise KeyProblem("options", message, "remove it")
