"""The example schedule: warm-up, stable, decay."""

import json
import math

import pytest

from convrun.contracts.scheduler import Horizon
from convrun.errors import KeyProblem
from convrun.plan import Machine, make_plan
from convrun.recipe import load_recipe
from convrun.recipe.problems import RecipeError
from convrun.registry import registry
from convrun.training.run import run

HORIZON = Horizon(total_steps=100, steps_per_epoch=10, peak_lr=0.4, warmup_steps=10)


@pytest.fixture
def wsd(recipe_with):
    load_recipe(recipe_with("wsd.py"))
    return registry.find("scheduler", "wsd").create


def test_a_run_takes_its_learning_rates(recipe_with, tmp_path):
    recipe = load_recipe(
        recipe_with("wsd.py", scheduler="{name: wsd, warmup_steps: 2, decay_epochs: 1, shape: linear, min_lr: 1e-4}")
    )
    outcome = run(recipe, tmp_path / "run", device="cpu")
    rows = [json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()]
    rates = [row["lr"] for row in rows if row["kind"] == "train"]
    # 2 epochs of 32 / 8 = 4 steps: convrun's warm-up of 2, 2 at 1e-3, 4 down by a quarter of 1e-3 - 1e-4 each.
    assert rates == pytest.approx([0, 1e-3, 1e-3, 1e-3, 1e-3, 7.75e-4, 5.5e-4, 3.25e-4])


def test_a_plateau_then_a_decay(wsd):
    lr = wsd(HORIZON, decay_steps=20, min_lr=0.1)
    assert {lr(step) for step in range(10, 81)} == {0.4}
    assert lr(85) == pytest.approx(0.1 + 0.3 * (1 - math.sqrt(5 / 20)))
    assert all(lr(step + 1) < lr(step) for step in range(80, 100))
    assert lr(100) == pytest.approx(0.1)


def test_units_agree(wsd):
    by_epochs, by_steps = wsd(HORIZON, decay_epochs=2.5), wsd(HORIZON, decay_steps=25)
    assert [by_epochs(step) for step in range(10, 100)] == [by_steps(step) for step in range(10, 100)]


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({}, "decay_epochs"),
        ({"decay_epochs": 1, "decay_steps": 10}, "decay_epochs"),
        ({"decay_epochs": 0.01}, "decay_epochs"),
        ({"decay_steps": 95}, "decay_steps"),
        ({"decay_steps": 10, "min_lr": 0.5}, "min_lr"),
    ],
)
def test_what_does_not_fit_names_its_key(wsd, keys, key):
    with pytest.raises(KeyProblem) as error:
        wsd(HORIZON, **keys)
    assert error.value.key == key


def test_a_plan_points_at_the_line(recipe_with):
    recipe = load_recipe(recipe_with("wsd.py", scheduler="{name: wsd, decay_steps: 9}"))
    with pytest.raises(RecipeError, match=r"tiny.yaml:\d+:\d+: scheduler.decay_steps: a warm-up of 0 .* run of 8"):
        make_plan(recipe, Machine())
