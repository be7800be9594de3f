import pytest

from convrun.text.units import size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1000 B"), (1023, "1023 B"), (1024, "1 KiB"), (1500, "1.46 KiB"),
     ((1 << 20) - 1, "1024 KiB"), (5 << 20, "5 MiB"), (3 << 30, "3 GiB"), (7 << 40, "7 TiB"), (2000 << 40, "2000 TiB")],
)  # fmt: skip
def test_bytes_are_told_in_binary_units(size, text):
    assert size_text(size) == text
