import pytest

from convrun.keys import Key
from convrun.keys.durations import Duration, duration_seconds
from convrun.keys.key_sets import InvalidKeys, KeySet
from convrun.keys.type_text import type_text
from convrun.recipe.problems import RecipeError
from convrun.text.units import duration_text

KEYS = KeySet([Key("limit", Duration | None, None, "")])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45m", 2700), ("11h30m", 41400), ("2d", 172800), ("1d2h3m4s", 93784), ("1h05m", 3900),
     ("1h0m", 3600), ("90m", 5400), ("007s", 7), ("999999d", 999999 * 86400)],
)  # fmt: skip
def test_a_duration_is_its_parts(text, seconds):
    assert KEYS.check({"limit": text}) == {"limit": text}
    assert duration_seconds(text) == seconds
    assert duration_seconds(duration_text(seconds)) == seconds


@pytest.mark.parametrize(
    "value",
    [30, 0, 1.5, True, "", "30", "0s", "00m", "0h30m", "-5m", "1.5h", "30m1h", "1h1h", "5 m", " 5m", "5m ", "5m\n",
     "5M", "h", "1w", "٣m", "1000000d", ["5m"], {"h": 1}],
)  # fmt: skip
def test_anything_else_is_refused(value):
    with pytest.raises(InvalidKeys, match=r"a duration with units \(90s, 45m, 11h30m, 2d\)"):
        KEYS.check({"limit": value})


def test_it_is_described_by_its_form():
    assert type_text(Duration) == "a duration with units (90s, 45m, 11h30m, 2d)"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59.6, "1m"), (3600, "1h"), (90061, "1d1h1m1s")])
def test_seconds_as_a_duration(seconds, text):
    assert duration_text(seconds) == text


def test_a_bare_number_is_refused_with_the_cure(tiny):
    with pytest.raises(
        RecipeError, match=r"training\.stop_after: must be a duration with units \(90s, .*2d\) or null, got 30"
    ):
        tiny("training.stop_after=30")


def test_it_changes_neither_the_hash_of_a_recipe_nor_its_numbers(tiny):
    assert tiny("training.stop_after=2d").hash == tiny().hash


def test_the_plan_shows_it(tiny):
    from convrun.display.plan_text import plan_text
    from convrun.plan import Machine, make_plan

    recipe = tiny("training.stop_after=90m")
    plan = make_plan(recipe, Machine())
    assert plan.stop_after_seconds == 5400
    assert "each start saves and stops after 1h30m with exit code 75" in plan_text(recipe, plan)
