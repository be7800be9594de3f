"""How other libraries name ConvNeXt's tensors: one table for each library and family of models.

convrun's names are timm's. `released` is the code of the papers (arXiv:2201.03545, arXiv:2301.00808) and of DINOv3,
`fcmae` its sparse encoder in pre-training; `torchvision`, `transformers` and `mmpretrain` are the libraries'. A row is
(their name, our name), or (their name, our name, their axes): the letters stand for our axes, in our order, 1 for an
axis of length 1 that only they have, and `hw` for both axes of a kernel in one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from convrun.weights.templates import Template

Row = tuple[str, str] | tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Rule:
    """One row, ready to be matched.

    Attributes:
        axes: their axes where they differ from ours; a tensor of another rank is left as it is.
    """

    theirs: Template
    ours: Template
    axes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """One family of models in one library's names; the first rule that matches a name counts."""

    layout: str
    rules: tuple[Rule, ...]


def _table(layout: str, outside: Sequence[Row], blocks: tuple[str, str], block: Sequence[Row]) -> Table:
    """Rows of what is outside the blocks, the two names of a block, and rows of what is in it."""
    theirs, ours = blocks
    within = [(f"{theirs}.{row[0]}", f"{ours}.{row[1]}", *row[2:]) for row in block]
    rules = (Rule(Template(row[0]), Template(row[1]), tuple(" ".join(row[2:]).split())) for row in [*outside, *within])
    return Table(layout, tuple(rules))


def _linear(theirs: str, ours: str) -> list[Row]:
    """A linear layer, which timm's small models write as a 1x1 convolution."""
    return [(f"{theirs}.weight", f"{ours}.weight", "o i"), (f"{theirs}.bias", f"{ours}.bias")]


def _transformers(model: str, extra: Sequence[Row]) -> Table:
    """`model` is the attribute that holds everything but the classifier; a file of the model alone lacks it."""
    return _table(
        "transformers",
        [
            (f"{model}embeddings.patch_embeddings.{{p}}", "stem.0.{p}"),
            (f"{model}embeddings.layernorm.{{p}}", "stem.1.{p}"),
            (f"{model}encoder.stages.{{s}}.downsampling_layer.{{i}}.{{p}}", "stages.{s}.downsample.{i}.{p}"),
            (f"{model}layernorm.{{p}}", "head.norm.{p}"),
            ("classifier.{p}", "head.fc.{p}"),
        ],
        (f"{model}encoder.stages.{{s}}.layers.{{b}}", "stages.{s}.blocks.{b}"),
        [
            ("dwconv.{p}", "conv_dw.{p}"),
            ("layernorm.{p}", "norm.{p}"),
            *_linear("pwconv1", "mlp.fc1"),
            *_linear("pwconv2", "mlp.fc2"),
            *extra,
        ],
    )


def _dinov3_of_transformers(model: str) -> Table:
    """`model` is the attribute that holds the stages; files of the hub lack it."""
    return _table(
        "transformers",
        [
            (f"{model}stages.0.downsample_layers.{{i}}.{{p}}", "stem.{i}.{p}"),
            (f"{model}stages.{{s}}.downsample_layers.{{i}}.{{p}}", "stages.{s}.downsample.{i}.{p}"),
            ("layer_norm.{p}", "head.norm.{p}"),
        ],
        (f"{model}stages.{{s}}.layers.{{b}}", "stages.{s}.blocks.{b}"),
        [
            ("depthwise_conv.{p}", "conv_dw.{p}"),
            ("layer_norm.{p}", "norm.{p}"),
            *_linear("pointwise_conv1", "mlp.fc1"),
            *_linear("pointwise_conv2", "mlp.fc2"),
            ("gamma", "gamma"),
        ],
    )


def _mmpretrain(backbone: str) -> Table:
    """`backbone` is the attribute that holds everything but the classifier; a file of the backbone alone lacks it."""
    return _table(
        "mmpretrain",
        [
            (f"{backbone}downsample_layers.0.{{i}}.{{p}}", "stem.{i}.{p}"),
            (f"{backbone}downsample_layers.{{s}}.{{i}}.{{p}}", "stages.{s}.downsample.{i}.{p}"),
            (f"{backbone}norm3.{{p}}", "head.norm.{p}"),
            ("head.fc.{p}", "head.fc.{p}"),
        ],
        (f"{backbone}stages.{{s}}.{{b}}", "stages.{s}.blocks.{b}"),
        [
            ("depthwise_conv.{p}", "conv_dw.{p}"),
            ("norm.{p}", "norm.{p}"),
            *_linear("pointwise_conv1", "mlp.fc1"),
            *_linear("pointwise_conv2", "mlp.fc2"),
            ("gamma", "gamma"),
            ("grn.gamma", "mlp.grn.weight"),
            ("grn.beta", "mlp.grn.bias"),
        ],
    )


_OUR_BLOCK: list[Row] = [
    (name, name) for name in ("conv_dw.{p}", "norm.{p}", "mlp.fc1.{p}", "mlp.fc2.{p}", "mlp.grn.{p}", "gamma")
]
_RELEASED_BLOCK: list[Row] = [
    ("dwconv.{p}", "conv_dw.{p}"),
    ("norm.{p}", "norm.{p}"),
    *_linear("pwconv1", "mlp.fc1"),
    *_linear("pwconv2", "mlp.fc2"),
    ("gamma", "gamma"),
    ("grn.gamma", "mlp.grn.weight", "1 1 1 c"),
    ("grn.beta", "mlp.grn.bias", "1 1 1 c"),
]
_V1: list[Row] = [("layer_scale_parameter", "gamma")]
_V2: list[Row] = [("grn.weight", "mlp.grn.weight", "1 1 1 c"), ("grn.bias", "mlp.grn.bias", "1 1 1 c")]

TABLES: tuple[Table, ...] = (
    _table(
        "timm",
        [(n, n) for n in ("stem.{i}.{p}", "stages.{s}.downsample.{i}.{p}", "head.norm.{p}", "head.fc.{p}")],
        ("stages.{s}.blocks.{b}", "stages.{s}.blocks.{b}"),
        _OUR_BLOCK,
    ),
    # timm has no isotropic models: these names are convrun's own.
    _table("timm", [(n, n) for n in ("stem.{p}", "norm.{p}", "head.{p}")], ("blocks.{b}", "blocks.{b}"), _OUR_BLOCK),
    _table(
        "released",
        [
            ("downsample_layers.0.{i}.{p}", "stem.{i}.{p}"),
            ("downsample_layers.{s}.{i}.{p}", "stages.{s}.downsample.{i}.{p}"),
            ("norm.{p}", "head.norm.{p}"),
            ("head.{p}", "head.fc.{p}"),
        ],
        ("stages.{s}.{b}", "stages.{s}.blocks.{b}"),
        _RELEASED_BLOCK,
    ),
    _table(
        "released",
        [(n, n) for n in ("stem.{p}", "norm.{p}", "head.{p}")],
        ("blocks.{b}", "blocks.{b}"),
        _RELEASED_BLOCK,
    ),
    _table(
        "torchvision",
        [
            ("features.0.{i}.{p}", "stem.{i}.{p}"),
            ("features.{2s}.{i}.{p}", "stages.{s}.downsample.{i}.{p}"),
            ("classifier.0.{p}", "head.norm.{p}"),
            ("classifier.2.{p}", "head.fc.{p}"),
        ],
        ("features.{2s+1}.{b}", "stages.{s}.blocks.{b}"),
        [
            ("block.0.{p}", "conv_dw.{p}"),
            ("block.2.{p}", "norm.{p}"),
            *_linear("block.3", "mlp.fc1"),
            *_linear("block.5", "mlp.fc2"),
            ("layer_scale", "gamma", "c 1 1"),
        ],
    ),
    _table(
        "fcmae",
        [
            ("downsample_layers.0.{i}.{p}", "stem.{i}.{p}"),
            ("downsample_layers.{s}.{i}.ln.{p}", "stages.{s}.downsample.{i}.{p}"),
            ("downsample_layers.{s}.{i}.kernel", "stages.{s}.downsample.{i}.weight", "hw i o"),
            ("downsample_layers.{s}.{i}.bias", "stages.{s}.downsample.{i}.bias", "1 o"),
        ],
        ("stages.{s}.{b}", "stages.{s}.blocks.{b}"),
        [
            ("dwconv.kernel", "conv_dw.weight", "hw c"),
            ("dwconv.bias", "conv_dw.bias", "1 c"),
            ("norm.ln.{p}", "norm.{p}"),
            *_linear("pwconv1.linear", "mlp.fc1"),
            *_linear("pwconv2.linear", "mlp.fc2"),
            ("grn.gamma", "mlp.grn.weight", "1 c"),
            ("grn.beta", "mlp.grn.bias", "1 c"),
        ],
    ),
    _transformers("convnext.", _V1),
    _transformers("convnextv2.", _V2),
    _transformers("", [*_V1, *_V2]),
    _dinov3_of_transformers("model."),
    _dinov3_of_transformers(""),
    _mmpretrain("backbone."),
    _mmpretrain(""),
)
