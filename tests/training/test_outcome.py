from pathlib import Path

import pytest

from convrun.distributed.failing.failure import Failure
from convrun.errors import DataError, Diverged, Interrupted, Preempted
from convrun.process.world import World
from convrun.recipe import load_recipe, shipped_recipes
from convrun.training.outcome import Outcome, outcome_text, state_after, state_of_failure


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Diverged("x"), "diverged"),
        (Interrupted("x"), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
        (Preempted("x"), "preempted"),
        (DataError("x"), "failed"),
        (ZeroDivisionError("x"), "failed"),
    ],
)
def test_an_end_has_the_same_state_whichever_process_it_came_from(error, state):
    assert state_after(error) == state
    assert state_of_failure(Failure.of(error, World())) == state


def lines(recipe, **keys):
    return outcome_text(
        recipe, Outcome(**({"folder": Path("runs/a b"), "top1": 98.765, "step": 7} | keys))
    ).splitlines()


def test_says_the_result_the_folder_and_commands_that_can_be_pasted(tiny, tiny_file):
    assert lines(tiny("logging.to=[jsonl, tensorboard]")) == [
        "finished after step 7",
        "best top-1  98.77 % (ema weights)",
        "run folder  runs/a b",
        "weights     runs/a b/weights (safetensors)",
        "next        convrun show 'runs/a b' --origin",
        "            tensorboard --logdir 'runs/a b'",
        f"            convrun run {tiny_file} seed=4",
    ]


def test_says_that_timm_loads_the_weights_only_of_models_that_timm_has():
    """Timm knows no free shape and no isotropic model by name."""
    at = {name: lines(load_recipe(name, plugins=False))[3].partition("(")[2] for name in shipped_recipes()}
    without = {name for name, text in at.items() if "timm" not in text}
    isotropic = {f"convnext_isotropic_{size}_in1k" for size in ("small", "base", "large")}
    assert without == isotropic | {"digits_demo"}


def test_names_a_shipped_recipe_by_its_name():
    assert lines(load_recipe("digits_demo", plugins=False))[-1] == "            convrun run digits_demo seed=1"


def test_tensorboard_is_named_only_where_it_has_something_to_show(tiny):
    assert not any("tensorboard" in line for line in lines(tiny()))


def test_says_why_a_run_ended_early_and_that_it_was_finished_already(tiny):
    assert lines(tiny(), stopped_because="no gain")[0] == "finished after step 7: no gain"
    assert lines(tiny(), was_finished=True)[0] == "this run is finished already, after step 7"


def test_says_what_was_expected_or_that_nothing_was_evaluated(tiny, tiny_file, tmp_path):
    path = tmp_path / "expecting.yaml"
    path.write_text(tiny_file.read_text() + "expect: {top1: 99.0}\n")
    assert lines(load_recipe(path))[1] == "best top-1  98.77 % (ema weights), expected 99 %"
    # Another seed is another training than the one that the figure is of.
    assert lines(load_recipe(path, ["seed=9"]))[1] == "best top-1  98.77 % (ema weights)"
    assert lines(tiny(), top1=None)[1] == "best top-1  none: the recipe evaluates nothing"
