import math

import pytest

from convrun.augment.policy import RandAugmentPolicy, parse_policy
from convrun.errors import KeyProblem


def test_the_papers_policy():
    assert parse_policy("rand-m9-mstd0.5-inc1") == RandAugmentPolicy(9, 2, 0.5, 0.5, 10, True)


def test_parts_may_come_in_any_order_and_have_timms_defaults():
    assert parse_policy("rand-inc0-mmax12-p0.25-n3-m11") == RandAugmentPolicy(11, 3, 0.25, 0.0, 12, False)
    assert parse_policy("rand") == RandAugmentPolicy(10, 2, 0.5, 0.0, 10, False)


@pytest.mark.parametrize(("text", "std"), [("rand-mstd100", 100.0), ("rand-mstd101", math.inf)])
def test_a_spread_above_100_is_uniform(text, std):
    assert parse_policy(text).magnitude_std == std


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m9-mstd0.5", "does not start with 'rand'.*write it like rand-m9-mstd0.5-inc1"),
        ("augmix-m3", "does not start with 'rand'"),
        ("rand-m9-", "'' is not understood"),
        ("rand-m", "'m' is not understood.*m \\(magnitude\\)"),
        ("rand-m-1", "'m' is not understood"),
        ("rand-std0.5", "'std0.5' is not understood.*mstd"),
        ("rand-m9.5", "m9.5: m \\(magnitude\\) is a whole number"),
        ("rand-m9-m8", "sets m twice \\(m9 and m8\\)"),
        ("rand-m9-w0", "'w0' picks weighted operations.*remove '-w0'"),
        ("rand-m9-tweights", "'tweights' picks weighted operations"),
        ("rand-n0", "n0 has no effect"),
        ("rand-p0", "p0: .*above 0"),
        ("rand-p1.5", "p1.5: .*at most 1"),
        ("rand-mmax0", "mmax0 has no effect"),
        ("rand-inc2", "inc2: inc is 0 or 1"),
        ("rand-m15-mstd0.5", "m15 has no effect.*write m10, or add mmax15"),
    ],
)
def test_a_bad_policy_says_which_part_and_the_cure(text, message):
    with pytest.raises(KeyProblem, match=message) as caught:
        parse_policy(text)
    assert caught.value.key == "policy"
    assert caught.value.cure


@pytest.mark.parametrize("text", ["rand-m11-mstd0.5", "rand-m15-mmax20", "rand-m15-mstd101", "rand-m10"])
def test_a_magnitude_that_is_only_sometimes_clipped_is_allowed(text):
    assert parse_policy(text).magnitude >= 10
