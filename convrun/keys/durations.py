"""Durations as people write them: `90s`, `45m`, `11h30m`, `2d`."""

from __future__ import annotations

import re
from typing import Annotated

from convrun.keys import Written
from convrun.text.units import UNITS

_FIRST, _NEXT = "0*[1-9][0-9]{0,5}", "[0-9]{1,6}"
# Largest unit first, each at most once, the first not zero; without look-ahead, which not every engine supports.
_PATTERN = "|".join(
    f"{_FIRST}{unit}" + "".join(f"({_NEXT}{smaller})?" for smaller in list(UNITS)[i:])
    for i, unit in enumerate(UNITS, 1)
)

Duration = Annotated[str, Written(f"^({_PATTERN})$", "a duration with units (90s, 45m, 11h30m, 2d)")]


def duration_seconds(text: str) -> int:
    """The seconds of a duration, which must have been checked."""
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"([0-9]+)([dhms])", text))
