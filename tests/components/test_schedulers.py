import pytest

from convrun.components.schedulers import constant, cosine, linear, step
from convrun.contracts.scheduler import Horizon
from convrun.errors import KeyProblem


def test_a_curve_goes_from_the_peak_to_its_minimum_one_step_beyond_the_last():
    for build in (cosine, linear):
        lr = build(Horizon(100, 10, 0.3, warmup_steps=7), min_lr=0.01)
        assert lr(7) == 0.3
        assert lr(8) < 0.3
        assert lr(99) > 0.01
        assert lr(100) == pytest.approx(0.01, rel=1e-12)


def test_linear_falls_evenly_towards_a_minimum_it_does_not_reach():
    lr = linear(Horizon(6, 1, 1.0, warmup_steps=2), min_lr=0.2)
    assert [lr(s) for s in range(2, 6)] == pytest.approx([1, 0.8, 0.6, 0.4], rel=1e-12)


def test_step_drops_at_intervals_of_the_whole_run():
    horizon = Horizon(9, 1, 1.0, warmup_steps=2)
    by_epochs, by_steps = step(horizon, every_epochs=3, factor=0.5), step(horizon, every_steps=3, factor=0.5)
    assert [by_epochs(s) for s in range(2, 9)] == [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert [by_steps(s) for s in range(9)] == [by_epochs(s) for s in range(9)]


def test_constant_stays_at_the_peak():
    assert {constant(Horizon(9, 1, 0.5, warmup_steps=2))(s) for s in range(2, 9)} == {0.5}


HORIZON = Horizon(40, 4, 0.1)


@pytest.mark.parametrize(
    ("build", "keys", "key"),
    [
        (cosine, {"min_lr": 0.2}, "min_lr"),
        (linear, {"min_lr": 0.2}, "min_lr"),
        (step, {}, "every_epochs"),
        (step, {"every_epochs": 1, "every_steps": 4}, "every_epochs"),
        (step, {"every_epochs": 0.1}, "every_epochs"),
        (step, {"every_epochs": 10}, "every_epochs"),
    ],
)
def test_refuses_what_cannot_be_or_has_no_effect(build, keys, key):
    with pytest.raises(KeyProblem) as caught:
        build(HORIZON, **keys)
    assert caught.value.key == key


def test_a_drop_within_the_warm_up_is_refused():
    with pytest.raises(KeyProblem, match="an interval of 3 steps would end within the warm-up of 4") as caught:
        step(Horizon(40, 4, 0.1, warmup_steps=4), every_steps=3)
    assert caught.value.key == "every_steps"


def test_the_limits_themselves_are_allowed():
    assert cosine(Horizon(40, 4, 0.1, warmup_steps=39), min_lr=0.1)(39) == 0.1
    assert step(HORIZON, every_steps=39)(39) == pytest.approx(0.01)
