r"""Names that look alike: which are one name, and how two that are not are shown apart.

An accented letter is one code point (`caf\xe9`) or two (`cafe\u0301`), depending on the system that wrote the name:
these are one name. A space at the end, a letter of another script or of another case makes another name, which people
may not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from convrun.text.wording import listed

MOST_SHOWN = 3
# Cyrillic and Greek letters, the capitals first, and what they look like.
_CAPITALS = dict(
    zip(
        map(ord, "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406\u0408\u0405"
                 "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"),
        "ABEKMHOPCTXIJSABEZHIKMNOPTYX",
        strict=True,
    )
)  # fmt: skip
_OTHERS = dict(
    zip(
        map(ord, "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u03bf\u03bd"
                 "\u2010\u2011\u2012\u2013\u2014\u2212\u2018\u2019\u02bc\u201c\u201d"),
        "aeopcyxijsov------'''\"\"",
        strict=True,
    )
)  # fmt: skip


def composed(name: str) -> str:
    """The name in Unicode's form NFC, in which accents are parts of their letters."""
    if name.isascii():
        return name
    import unicodedata

    return unicodedata.normalize("NFC", name)


def composed_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names of labels, composed; as they are if that gave two labels one name."""
    names = tuple(names)
    after = tuple(map(composed, names))
    return after if len(set(after)) == len(set(names)) else names


def look_alike(name: str, names: Iterable[str]) -> str | None:
    """The first of other names that people may take for this one."""
    look = _look(name)
    return next((other for other in names if other != name and _look(other) == look), None)


def look_alikes(names: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of a name and another one that it looks like."""
    by_look: dict[str, list[str]] = {}
    for other in others:
        by_look.setdefault(_look(other), []).append(other)
    found = ((name, [other for other in by_look.get(_look(name), ()) if other != name]) for name in names)
    return [(name, like[0]) for name, like in found if like]


def apart(name: str, other: str) -> tuple[str, str]:
    """Both names in quotes; what is not ASCII is escaped in both if they look alike."""
    show = ascii if look_alike(name, [other]) else repr
    return show(name), show(other)


def pairs_text(pairs: Sequence[tuple[str, str]], here: str, there: str) -> str:
    """`'cat ' in val looks like 'cat' in train`, for the first few pairs."""
    return listed([f"{name!a} {here} looks like {other!a} {there}" for name, other in pairs], MOST_SHOWN)


def _look(name: str) -> str:
    import unicodedata

    plain = unicodedata.normalize("NFKC", name).translate(_CAPITALS).casefold().translate(_OTHERS)
    # Format characters (zero-width ones, marks of direction) and variation selectors show nothing.
    seen = (c for c in plain if unicodedata.category(c) not in ("Cf", "Cc") and not "\ufe00" <= c <= "\ufe0f")
    return " ".join("".join(seen).split())
