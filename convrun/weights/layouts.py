"""State dicts from one house's names to another's; what the houses are called is in `convrun.weights.tables`.

Equal tensors under other names give equal logits, but for one thing: the final norm of transformers has an epsilon of
1e-12 unless its config says otherwise, all others' 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from convrun.errors import ModelError
from convrun.weights.tables import TABLES, Rule, Table

Translate = Callable[[Rule, str, Tensor], tuple[str, Tensor] | None]


def layouts() -> list[str]:
    """The names of all layouts."""
    return list(dict.fromkeys(table.layout for table in TABLES))


def detect(keys: Collection[str]) -> str:
    """The layout that a state dict's names are in.

    Raises:
        ModelError: none of them covers even half of the names.
    """
    return _table_of(keys).layout


def to_convrun(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of any layout in convrun's names, which are timm's; names that no rule knows stay.

    Raises:
        ModelError: the names are of no layout, or two of them become one.
    """
    translated, _ = _translated(state, _table_of(state), _ours)
    return translated


def from_convrun(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """A ConvNeXt's state dict in the names and shapes of a layout.

    Raises:
        ModelError: no such layout, or it has no name for a tensor (torchvision has no GRN, for one).
    """
    if layout not in layouts():
        raise ModelError(f"there is no layout {layout!r}; there are {', '.join(layouts())}")
    if layout == "timm":
        return dict(state)
    attempts = [_translated(state, table, _theirs) for table in TABLES if table.layout == layout]
    translated, unknown = min(attempts, key=lambda attempt: len(attempt[1]))
    if unknown:
        raise ModelError(f"the {layout} layout has no name for {len(unknown)} tensors, such as {_sample(unknown)}")
    return translated


def _table_of(keys: Collection[str]) -> Table:
    counts = [sum(any(rule.theirs.match(key) is not None for rule in table.rules) for key in keys) for table in TABLES]
    best = max(counts)
    if 2 * best <= len(keys):
        raise ModelError(
            f"the tensors' names are of no layout convrun knows ({', '.join(layouts())}); they begin with "
            f"{_sample(keys)}"
        )
    return TABLES[counts.index(best)]


def _translated(state: Mapping[str, Tensor], table: Table, translate: Translate) -> tuple[dict[str, Tensor], list[str]]:
    """The renamed tensors, and the names no rule knows, which stay."""
    translated, unknown = {}, []
    for key, tensor in state.items():
        found = next((pair for rule in table.rules if (pair := translate(rule, key, tensor)) is not None), None)
        if found is None:
            unknown.append(key)
        name, tensor = found or (key, tensor)
        if name in translated:
            raise ModelError(f"two tensors would be called {name}, one of them {key}; the {table.layout} layout fails")
        translated[name] = tensor
    return translated, unknown


def _ours(rule: Rule, key: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    values = rule.theirs.match(key)
    if values is None:
        return None
    # Other ranks stay: they are another generation's, and the loader fits axes of length 1.
    if rule.axes and tensor.ndim == len(rule.axes):
        tensor = tensor.reshape([size for size, axis in zip(tensor.shape, rule.axes, strict=True) if axis != "1"])
    return rule.ours.fill(values), tensor


def _theirs(rule: Rule, key: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    values = rule.ours.match(key)
    if values is None:
        return None
    if rule.axes:
        sizes = iter(tensor.shape)
        tensor = tensor.reshape([1 if axis == "1" else next(sizes) for axis in rule.axes])
    return rule.theirs.fill(values), tensor


def _sample(keys: Collection[str]) -> str:
    return ", ".join(list(keys)[:4])
