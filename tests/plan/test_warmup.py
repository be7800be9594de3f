import json
import math
from pathlib import Path

import pytest

from convrun.components.schedulers import constant, cosine
from convrun.contracts.scheduler import SchedulerSettings
from convrun.errors import KeyProblem
from convrun.plan.warmup import horizon_of, warmed_up

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lr_schedules.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_cosine_is_that_of_the_released_code(case):
    settings = SchedulerSettings(warmup_epochs=case["warmup_epochs"])
    horizon = horizon_of(settings, case["total_steps"], case["steps_per_epoch"], case["base_value"])
    lr = warmed_up(cosine(horizon, min_lr=case["final_value"]), horizon, 0.0)
    for at, value in case["values"].items():
        assert math.isclose(lr(int(at)), value, rel_tol=1e-12, abs_tol=0), at


def constant_after(total_steps, steps_per_epoch, peak_lr, **warmup):
    settings = SchedulerSettings(**warmup)
    horizon = horizon_of(settings, total_steps, steps_per_epoch, peak_lr)
    return warmed_up(constant(horizon), horizon, settings.warmup_start_lr)


def test_warm_up_has_both_ends_and_the_schedule_starts_at_the_peak_again():
    lr = constant_after(100, 10, 0.3, warmup_steps=7)
    assert [lr(0), lr(3), lr(6), lr(7)] == [0.0, 0.15, 0.3, 0.3]


def test_warm_up_starts_where_it_is_told():
    lr = constant_after(100, 10, 1e-3, warmup_steps=5, warmup_start_lr=2e-4)
    assert [lr(s) for s in range(7)] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3, 1e-3], rel=1e-12)


def test_a_warm_up_of_one_step_is_its_start():
    lr = constant_after(10, 10, 1.0, warmup_steps=1)
    assert [lr(0), lr(1)] == [0.0, 1.0]


def test_a_schedule_is_not_asked_for_the_steps_of_the_warm_up():
    asked = []
    horizon = horizon_of(SchedulerSettings(warmup_steps=3), 5, 1, 1.0)
    lr = warmed_up(lambda step: asked.append(step) or 1.0, horizon, 0.0)
    assert [lr(step) for step in range(5)] == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert asked == [3, 4]


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"), [(None, None, 0), (0, None, 0), (1.5, None, 6), (0.3, None, 1), (None, 9, 9)]
)
def test_warm_up_in_either_unit(epochs, steps, expected):
    assert horizon_of(SchedulerSettings(epochs, steps), 40, 4, 1.0).warmup_steps == expected


@pytest.mark.parametrize(
    ("keys", "key", "message"),
    [
        ({"warmup_epochs": 1, "warmup_steps": 4}, "warmup_steps", "given twice"),
        ({"warmup_epochs": 0, "warmup_steps": 0}, "warmup_steps", "given twice"),
        ({"warmup_epochs": 10}, "warmup_epochs", "40 steps does not fit a run of 40"),
        ({"warmup_steps": 40}, "warmup_steps", "40 steps does not fit a run of 40"),
        ({"warmup_start_lr": 0.01}, "warmup_start_lr", "no effect without a warm-up"),
        ({"warmup_start_lr": 0.2, "warmup_steps": 3}, "warmup_start_lr", "the warm-up would fall"),
    ],
)
def test_refuses_what_cannot_be_or_has_no_effect(keys, key, message):
    with pytest.raises(KeyProblem, match=message) as caught:
        horizon_of(SchedulerSettings(**keys), 40, 4, 0.1)
    assert caught.value.key == key
