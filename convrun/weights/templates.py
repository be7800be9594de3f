"""Key templates: one text that both takes a tensor's name apart and puts it together.

`features.{2s+1}.{b}.block.0.{p}` matches `features.5.8.block.0.bias` with s = 2, b = 8, p = bias. A placeholder is one
letter: a number, which may be multiplied and shifted; `{p}` is `weight` or `bias`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"\{(\d*)([a-z])(?:\+(\d+))?\}")


class Template:
    """A pattern of tensor names.

    Args:
        text: the name, with placeholders.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # (letter, factor, shift) in order of appearance
        self._parts = [(m[2], int(m[1] or 1), int(m[3] or 0)) for m in _PLACEHOLDER.finditer(text)]
        plain = _PLACEHOLDER.split(text)[::4]
        groups = ["(weight|bias)" if letter == "p" else r"(\d+)" for letter, _, _ in self._parts]
        pairs = zip(plain, [*groups, ""], strict=True)
        self._regex = re.compile("".join(re.escape(text) + group for text, group in pairs))

    def match(self, key: str) -> dict[str, str] | None:
        """The placeholders' values in a name; None if the name is another."""
        found = self._regex.fullmatch(key)
        if found is None:
            return None
        values = {}
        for (letter, factor, shift), text in zip(self._parts, found.groups(), strict=True):
            if letter == "p":
                values[letter] = text
                continue
            number, rest = divmod(int(text) - shift, factor)
            if rest or number < 0:
                return None
            values[letter] = str(number)
        return values

    def fill(self, values: Mapping[str, str]) -> str:
        """The name with these values."""

        def text(found: re.Match[str]) -> str:
            value = values[found[2]]
            return value if found[2] == "p" else str(int(found[1] or 1) * int(value) + int(found[3] or 0))

        return _PLACEHOLDER.sub(text, self.text)
