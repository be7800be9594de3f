import json

from convrun.text.json_text import json_text


def test_control_characters_are_escaped_and_letters_are_not():
    everything = {"".join(map(chr, range(0x250))): ["×", "\u2028", "\\\x9b"]}
    text = json_text(everything)
    assert json.loads(text) == everything
    assert not [c for c in text if (ord(c) < 0x20 and c != "\n") or 0x7F <= ord(c) <= 0x9F]
    assert "é" in text
    assert "×" in text
