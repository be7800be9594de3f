import json
import math
from pathlib import Path

import pytest

from convrun.components.schedulers import constant, cosine, linear, step
from convrun.contracts.scheduler import Horizon, warmup_steps_of
from convrun.errors import KeyProblem

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lr_schedules.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_cosine_is_that_of_the_released_code(case):
    horizon = Horizon(case["total_steps"], case["steps_per_epoch"], case["base_value"])
    lr = cosine(horizon, warmup_epochs=case["warmup_epochs"], min_lr=case["final_value"])
    for at, value in case["values"].items():
        assert math.isclose(lr(int(at)), value, rel_tol=1e-12, abs_tol=0), at


def test_warm_up_has_both_ends_and_the_curve_starts_at_the_peak_again():
    lr = cosine(Horizon(100, 10, 0.3), warmup_steps=7, min_lr=0.01)
    assert [lr(0), lr(6), lr(7)] == [0.0, 0.3, 0.3]
    assert lr(8) < 0.3
    assert lr(99) > 0.01
    assert lr(100) == pytest.approx(0.01, rel=1e-12)  # one step beyond the last


def test_warm_up_starts_where_it_is_told():
    lr = constant(Horizon(100, 10, 1e-3), warmup_steps=5, warmup_start_lr=2e-4)
    assert [lr(s) for s in range(7)] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3, 1e-3], rel=1e-12)


def test_a_warm_up_of_one_step_is_its_start():
    lr = constant(Horizon(10, 10, 1.0), warmup_steps=1)
    assert [lr(0), lr(1)] == [0.0, 1.0]


def test_linear_falls_evenly_towards_a_minimum_it_does_not_reach():
    lr = linear(Horizon(6, 1, 1.0), warmup_epochs=2, min_lr=0.2)
    assert [lr(s) for s in range(6)] == pytest.approx([0, 1, 1, 0.8, 0.6, 0.4], rel=1e-12)


def test_step_drops_at_intervals_of_the_whole_run():
    by_epochs = step(Horizon(9, 1, 1.0), warmup_steps=2, every_epochs=3, factor=0.5)
    by_steps = step(Horizon(9, 1, 1.0), warmup_steps=2, every_steps=3, factor=0.5)
    assert [by_epochs(s) for s in range(9)] == [0, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert [by_steps(s) for s in range(9)] == [by_epochs(s) for s in range(9)]


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"), [(None, None, 0), (0, None, 0), (1.5, None, 6), (0.3, None, 1), (None, 9, 9)]
)
def test_warm_up_in_either_unit(epochs, steps, expected):
    assert warmup_steps_of(Horizon(40, 4, 1.0), epochs, steps) == expected


HORIZON = Horizon(40, 4, 0.1)


@pytest.mark.parametrize(
    ("build", "keys", "key"),
    [
        (cosine, {"warmup_epochs": 1, "warmup_steps": 4}, "warmup_steps"),
        (cosine, {"warmup_epochs": 0, "warmup_steps": 0}, "warmup_steps"),
        (cosine, {"warmup_epochs": 10}, "warmup_epochs"),
        (constant, {"warmup_steps": 40}, "warmup_steps"),
        (cosine, {"min_lr": 0.2}, "min_lr"),
        (linear, {"min_lr": 0.2}, "min_lr"),
        (linear, {"warmup_start_lr": 0.01}, "warmup_start_lr"),
        (linear, {"warmup_start_lr": 0.2, "warmup_steps": 3}, "warmup_start_lr"),
        (step, {}, "every_epochs"),
        (step, {"every_epochs": 1, "every_steps": 4}, "every_epochs"),
        (step, {"every_epochs": 0.1}, "every_epochs"),
        (step, {"every_steps": 3, "warmup_steps": 4}, "every_steps"),
        (step, {"every_epochs": 10}, "every_epochs"),
    ],
)
def test_refuses_what_cannot_be_or_has_no_effect(build, keys, key):
    with pytest.raises(KeyProblem) as caught:
        build(HORIZON, **keys)
    assert caught.value.key == key


def test_the_limits_themselves_are_allowed():
    assert cosine(HORIZON, warmup_steps=39, min_lr=0.1)(39) == 0.1
    assert step(HORIZON, every_steps=39)(39) == pytest.approx(0.01)
