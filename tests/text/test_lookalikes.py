from __future__ import annotations

import pytest

from convrun.text.lookalikes import apart, composed, composed_names, look_alike, look_alikes, pairs_text

NFC, NFD = "caf\xe9", "cafe\u0301"


def test_accents_become_parts_of_their_letters() -> None:
    assert (composed(NFD), composed(NFC), composed("cafe")) == (NFC, NFC, "cafe")
    assert composed("\ud55c") == composed("\u1112\u1161\u11ab")  # Korean syllables, which Macs take apart as well


def test_labels_that_would_get_one_name_keep_theirs() -> None:
    assert composed_names([NFD, "a", "a"]) == (NFC, "a", "a")
    assert composed_names([NFD, NFC]) == (NFD, NFC)


@pytest.mark.parametrize(
    "other",
    ["cat ", " cat", "cat\xa0", "c\u200bat", "cat\ufe0f", "\uff43\uff41\uff54", "Cat", "c\u0430t", "CAT", "ca\xadt",
     "cat\u202e", "\u0441at"],
)  # fmt: skip
def test_what_looks_the_same_is_found(other: str) -> None:
    assert look_alike("cat", ["dog", other]) == other
    assert look_alike(other, ["dog", "cat"]) == "cat"


@pytest.mark.parametrize("other", ["cat", "cats", "car", "c at", "c_at", "c-at", "\xe7at", "chat", ""])
def test_what_looks_otherwise_is_not(other: str) -> None:
    assert look_alike("cat", [other]) is None


@pytest.mark.parametrize(("one", "other"), [("a-b", "a\u2013b"), ("it's", "it\u2019s"), ("New York", "New  York")])
def test_dashes_quotes_and_spaces_look_alike(one: str, other: str) -> None:
    assert look_alikes([one, "x"], ["y", other]) == [(one, other)]


def test_what_looks_alike_is_shown_escaped() -> None:
    assert apart("th\xe9", "th\xe9 ") == ("'th\\xe9'", "'th\\xe9 '")
    assert apart("th\xe9", "caf\xe9") == ("'th\xe9'", "'caf\xe9'")
    assert pairs_text([("cat\xa0", "cat")], "in val", "in train") == "'cat\\xa0' in val looks like 'cat' in train"
