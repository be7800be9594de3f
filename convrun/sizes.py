"""Sizes as people read them: `512 B`, `1.46 GiB`."""

from __future__ import annotations


def size_text(size: float) -> str:
    """Bytes in the largest binary unit of which there is one, to three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{_digits(size)} {unit}"
        size /= 1024
    return f"{_digits(size)} TiB"


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 else f"{number:.0f}"
