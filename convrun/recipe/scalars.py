"""Text -> values: plain scalars under YAML 1.2's core schema (yaml.org/spec/1.2.2, section 10.3.2)."""

from __future__ import annotations

import math
import re
from typing import Any

_INT = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}")  # longer ones stay text, which no numeric key accepts
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def scalar(text: str) -> Any:
    """A plain scalar under YAML 1.2's core schema."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) < 25 else _finite_or_text(text)
    if _OTHER_BASE.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


def _finite_or_text(digits: str) -> float | str:
    """A longer integer as a float; as text, which no numeric key accepts, if the float would be infinite."""
    value = float(digits)
    return value if math.isfinite(value) else digits


def is_unicode(text: str) -> bool:
    """Whether the text has no lone surrogates, by which Python represents bytes that are not UTF-8."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)
