"""What a row of metrics.jsonl says that must not pass unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def row_notice(row: Mapping[str, Any]) -> str:
    """A line about an event or a loss spike; empty for a row like any other."""
    if row["kind"] == "event":
        return (
            f"step {row['step']} ran out of memory and begins anew; from here on each micro-batch goes through the "
            f"model in {row['forward_splits']} parts, which changes neither the batch nor its images"
        )
    if "spike_step" in row:
        return f"loss spike: {row['spike_loss']:.4g} in step {row['spike_step']}"
    return ""
