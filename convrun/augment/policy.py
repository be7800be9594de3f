"""RandAugment's policy text, `rand-m9-mstd0.5-inc1`: read and checked without touching an image."""

from __future__ import annotations

import dataclasses
import math
import re

from convrun.errors import KeyProblem

FULL_MAGNITUDE = 10
_EXAMPLE = "write it like rand-m9-mstd0.5-inc1"
_MEANINGS = {
    "m": "magnitude",
    "n": "operations per image",
    "p": "probability of each",
    "mstd": "spread of the magnitude",
    "mmax": "largest magnitude",
    "inc": "1: severity grows with magnitude",
}


@dataclasses.dataclass(frozen=True)
class RandAugmentPolicy:
    """What a policy text says; the defaults are those of timm, whose notation it is.

    Attributes:
        magnitude: the mean magnitude (`m`); 10 is the full strength of every operation.
        count: operations drawn for an image, with replacement (`n`).
        probability: chance that a drawn operation is applied (`p`).
        magnitude_std: standard deviation of the magnitude (`mstd`); infinite: uniform in 0..magnitude.
        magnitude_max: magnitudes are clipped to 0..this (`mmax`).
        is_increasing: use the operations whose severity grows with the magnitude (`inc1`).
    """

    magnitude: int = FULL_MAGNITUDE
    count: int = 2
    probability: float = 0.5
    magnitude_std: float = 0.0
    magnitude_max: int = FULL_MAGNITUDE
    is_increasing: bool = False


def parse_policy(text: str) -> RandAugmentPolicy:
    """The policy that a text describes.

    Raises:
        KeyProblem: on the key `policy`; says which part is wrong and what to write.
    """
    head, *parts = text.split("-")
    if head != "rand":
        raise _problem(f"{text!r} is not a RandAugment policy: it does not start with 'rand'", _EXAMPLE)
    numbers: dict[str, str] = {}
    for part in parts:
        option, number = _split(part)
        if option in numbers:
            raise _problem(f"{text!r} sets {option} twice ({option}{numbers[option]} and {part})", "keep one of them")
        numbers[option] = number
    policy = RandAugmentPolicy(
        magnitude=_integer("m", numbers, FULL_MAGNITUDE),
        count=_integer("n", numbers, 2, least=1),
        probability=_probability(numbers),
        magnitude_std=_spread(numbers),
        magnitude_max=_integer("mmax", numbers, FULL_MAGNITUDE, least=1),
        is_increasing=_is_increasing(numbers),
    )
    _check_reach(policy)
    return policy


def _split(part: str) -> tuple[str, str]:
    if re.match(r"[wt]", part):
        raise _problem(f"{part!r} picks weighted operations, which convrun does not have", f"remove '-{part}'")
    match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
    if not match or match[1] not in _MEANINGS:
        known = ", ".join(f"{option} ({meaning})" for option, meaning in _MEANINGS.items())
        raise _problem(f"{part!r} is not understood", f"the parts are {known}, each followed by a number; {_EXAMPLE}")
    return match[1], match[2]


def _integer(option: str, numbers: dict[str, str], default: int, least: int = 0) -> int:
    number = numbers.get(option, str(default))
    if not number.isdigit():
        raise _problem(f"{option}{number}: {option} ({_MEANINGS[option]}) is a whole number", "drop the decimals")
    if int(number) < least:
        raise _problem(f"{option}{number} has no effect: {option} ({_MEANINGS[option]}) is at least {least}", _EXAMPLE)
    return int(number)


def _probability(numbers: dict[str, str]) -> float:
    number = numbers.get("p", "0.5")
    if not 0 < float(number) <= 1:
        raise _problem(f"p{number}: p ({_MEANINGS['p']}) must be above 0 and at most 1", "write p0.5, say")
    return float(number)


def _spread(numbers: dict[str, str]) -> float:
    # timm's notation: a spread above 100 stands for infinity and means a uniform magnitude; mstd101 is customary.
    std = float(numbers.get("mstd", "0"))
    return math.inf if std > 100 else std


def _is_increasing(numbers: dict[str, str]) -> bool:
    number = numbers.get("inc", "0")
    if number not in ("0", "1"):
        raise _problem(f"inc{number}: inc is 0 or 1", "write inc1 for operations that get more severe with magnitude")
    return number == "1"


def _check_reach(policy: RandAugmentPolicy) -> None:
    """Refuses a magnitude that is almost always clipped: even five deviations below it reach the bound."""
    magnitude, bound = policy.magnitude, policy.magnitude_max
    if magnitude > bound and magnitude - 5 * policy.magnitude_std >= bound:
        raise _problem(
            f"magnitude m{magnitude} has no effect: magnitudes are clipped to {bound}",
            f"write m{bound}, or add mmax{magnitude}",
        )


def _problem(message: str, cure: str) -> KeyProblem:
    return KeyProblem("policy", message, cure)
