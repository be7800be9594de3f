"""Sizes as people read them: `512 B`, `1.46 GiB`."""

from __future__ import annotations


def size_text(size: float) -> str:
    """Bytes in the largest binary unit that gives at least 1, to three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{_digits(size)} {unit}"
        size /= 1024
    return f"{_digits(size)} TiB"


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 else f"{number:.0f}"


UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def duration_text(seconds: float) -> str:
    """Seconds as a duration: `11h30m`."""
    left, parts = round(seconds), []
    for unit, length in UNITS.items():
        count, left = divmod(left, length)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


def clock(seconds: float) -> str:
    """`0:42`, `12:05`, `3 h 07 min`, `2 d 4 h`."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02} min"
    return f"{minutes}:{whole % 60:02}"
