"""How other houses name ConvNeXt's tensors: declared tables, read in both directions.

convrun's names are timm's. `released` is the code of the papers (arXiv:2201.03545, arXiv:2301.00808), whose isotropic
models have a table of their own; `torchvision` and `transformers` are the libraries'. Equal tensors under other names
give equal logits, but for one thing: transformers' default epsilon of the final norm is 1e-12, all others' 1e-6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from torch import Tensor

from convrun.errors import ModelError
from convrun.weights.templates import Template

# Rows are (their name, our name) or (their name, our name, their axes); ours are the letters alone, in that order.
Row = tuple[str, str] | tuple[str, str, str]

_RELEASED_BLOCK: list[Row] = [
    ("dwconv.{p}", "conv_dw.{p}"),
    ("norm.{p}", "norm.{p}"),
    ("pwconv1.weight", "mlp.fc1.weight", "o i"),
    ("pwconv1.bias", "mlp.fc1.bias"),
    ("pwconv2.weight", "mlp.fc2.weight", "o i"),
    ("pwconv2.bias", "mlp.fc2.bias"),
    ("gamma", "gamma"),
    ("grn.gamma", "mlp.grn.weight", "1 1 1 c"),
    ("grn.beta", "mlp.grn.bias", "1 1 1 c"),
]
_TORCHVISION_BLOCK: list[Row] = [
    ("block.0.{p}", "conv_dw.{p}"),
    ("block.2.{p}", "norm.{p}"),
    ("block.3.weight", "mlp.fc1.weight", "o i"),
    ("block.3.bias", "mlp.fc1.bias"),
    ("block.5.weight", "mlp.fc2.weight", "o i"),
    ("block.5.bias", "mlp.fc2.bias"),
    ("layer_scale", "gamma", "c 1 1"),
]
_TRANSFORMERS_BLOCK: list[Row] = [
    ("dwconv.{p}", "conv_dw.{p}"),
    ("layernorm.{p}", "norm.{p}"),
    ("pwconv1.weight", "mlp.fc1.weight", "o i"),
    ("pwconv1.bias", "mlp.fc1.bias"),
    ("pwconv2.weight", "mlp.fc2.weight", "o i"),
    ("pwconv2.bias", "mlp.fc2.bias"),
]
_TRANSFORMERS_V1: list[Row] = [*_TRANSFORMERS_BLOCK, ("layer_scale_parameter", "gamma")]
_TRANSFORMERS_V2: list[Row] = [
    *_TRANSFORMERS_BLOCK,
    ("grn.weight", "mlp.grn.weight", "1 1 1 c"),
    ("grn.bias", "mlp.grn.bias", "1 1 1 c"),
]
_OUR_BLOCK: list[Row] = [
    (name, name) for name in ("conv_dw.{p}", "norm.{p}", "mlp.fc1.{p}", "mlp.fc2.{p}", "mlp.grn.{p}", "gamma")
]


@dataclasses.dataclass(frozen=True)
class _Rule:
    theirs: Template
    ours: Template
    axes: str | None


@dataclasses.dataclass(frozen=True)
class _Table:
    """One family of models in one house's names; earlier rules win."""

    layout: str
    rules: tuple[_Rule, ...]

    def to_ours(self, key: str, tensor: Tensor | None = None) -> tuple[str, Tensor | None] | None:
        for rule in self.rules:
            if (values := rule.theirs.match(key)) is not None:
                return rule.ours.fill(values), _our_axes(tensor, rule.axes)
        return None

    def to_theirs(self, key: str, tensor: Tensor | None = None) -> tuple[str, Tensor | None] | None:
        for rule in self.rules:
            if (values := rule.ours.match(key)) is not None:
                return rule.theirs.fill(values), _their_axes(tensor, rule.axes)
        return None


def _table(layout: str, rows: Iterable[Row], block: Iterable[Row], their_block: str, our_block: str) -> _Table:
    within = [(f"{their_block}.{row[0]}", f"{our_block}.{row[1]}", *row[2:]) for row in block]
    whole = [(*row, None)[:3] for row in [*rows, *within]]
    return _Table(layout, tuple(_Rule(Template(theirs), Template(ours), axes) for theirs, ours, axes in whole))


def _staged(layout: str, stem: str, downsample: str, stage: str, norm: str, head: str, block: Iterable[Row]) -> _Table:
    rows: list[Row] = [
        (f"{stem}.{{i}}.{{p}}" if "{i}" not in stem else stem, "stem.{i}.{p}"),
        (f"{downsample}.{{i}}.{{p}}", "stages.{s}.downsample.{i}.{p}"),
        (f"{norm}.{{p}}", "head.norm.{p}"),
        (f"{head}.{{p}}", "head.fc.{p}"),
    ]
    return _table(layout, rows, block, f"{stage}.{{b}}", "stages.{s}.blocks.{b}")
