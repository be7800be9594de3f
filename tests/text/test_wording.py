from __future__ import annotations

import os

import pytest

from convrun.text.wording import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a b/ü–é.png", "a b/ü–é.png"),
     ("fa\u200cr\u00a0si.png", "fa\u200cr\u00a0si.png"), ("a\nb\t\x1b[31m", r"a\nb\t\x1b[31m"),
     (os.fsdecode(b"caf\xe9.jpg"), r"caf\udce9.jpg"), ("a\u2028b", r"a\u2028b")],
)  # fmt: skip
def test_names_can_be_printed(name: str, shown: str) -> None:
    assert printable(name) == shown
    shown.encode()
