"""Words and names for messages: the nearest name, lists, what can be printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Control characters, halves of a surrogate pair (Python's form of bytes that are not UTF-8), line separators.
ESCAPED = ("Cc", "Cs", "Zl", "Zp")


def printable(name: str) -> str:
    """A name for messages: line breaks, control characters and what UTF-8 cannot encode are escaped."""
    if name.isprintable():
        return name
    import unicodedata

    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in ESCAPED else c for c in name)


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most likely meant by `word`: one that differs by a single typing error, else the most similar."""
    import difflib

    candidates = sorted(set(names))
    slips = [name for name in candidates if is_one_slip(word, name)]
    close = difflib.get_close_matches(word, slips or candidates, 1, 0.0 if slips else 0.6)
    return close[0] if close else None


def is_one_slip(a: str, b: str) -> bool:
    """Whether a becomes b by one letter changed, added, dropped, or two neighbours swapped."""
    if abs(len(a) - len(b)) > 1 or a == b:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    rest_a, rest_b = a[start:], b[start:]
    return (
        rest_a[1:] == rest_b[1:]
        or rest_a[1:] == rest_b
        or rest_a == rest_b[1:]
        or (rest_a[:2] == rest_b[:2][::-1] and rest_a[2:] == rest_b[2:])
    )


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names for a message: all of them, or the first few and how many more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def first_line(error: BaseException) -> str:
    """The first line of what another library says, without the full stop; its class if it says nothing."""
    return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
