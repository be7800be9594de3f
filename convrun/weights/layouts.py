"""Names of a ConvNeXt's tensors: from a table's (`convrun.weights.tables`) to convrun's, which are timm's.

Equal tensors under other names give equal logits, but for one thing: the final norm of transformers has an epsilon of
1e-12 unless its config says otherwise, all others' 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from convrun.errors import ModelError
from convrun.weights.tables import TABLES, Rule, Table


def layouts() -> list[str]:
    """The names of all layouts."""
    return list(dict.fromkeys(table.layout for table in TABLES))


def renamed(state: Mapping[str, Tensor], table: Table) -> dict[str, tuple[str, Tensor]]:
    """{convrun's name: (the table's name, the tensor in convrun's axes)}; names that no rule knows stay.

    Raises:
        ModelError: two names become one.
    """
    found: dict[str, tuple[str, Tensor]] = {}
    for theirs, tensor in state.items():
        matches = (pair for rule in table.rules if (pair := _ours(rule, theirs, tensor)) is not None)
        ours, tensor = next(matches, (theirs, tensor))
        if ours in found:
            raise ModelError(
                f"two tensors would be called {ours}, {found[ours][0]} and {theirs}; the {table.layout} layout fails"
            )
        found[ours] = (theirs, tensor)
    return found


def _ours(rule: Rule, theirs: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    values = rule.theirs.match(theirs)
    if values is None:
        return None
    # Other ranks stay: they are another generation's, and the loader fits axes of length 1.
    if rule.axes and tensor.ndim == len(rule.axes):
        if rule.axes[0] == "hw":
            tensor = _dense_kernel(tensor)
        else:
            tensor = tensor.reshape([size for size, axis in zip(tensor.shape, rule.axes, strict=True) if axis != "1"])
    return rule.ours.fill(values), tensor


def _dense_kernel(kernel: Tensor) -> Tensor:
    """A sparse convolution's kernel [positions, in, out] (or [positions, channels]) -> [out, in, height, width].

    Positions count down the columns (remap_checkpoint_keys in the released code's utils.py). One whose positions make
    no square stays as it is, and does not fit the model.
    """
    if kernel.ndim == 2:
        kernel = kernel[:, None, :]
    side = math.isqrt(kernel.shape[0])
    if side * side != kernel.shape[0]:
        return kernel
    return kernel.reshape(side, side, *kernel.shape[1:]).permute(3, 2, 1, 0)
