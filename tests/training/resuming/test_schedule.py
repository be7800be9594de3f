import signal

import pytest

from convrun.errors import Preempted, RunFolderError
from convrun.plan import Machine, make_plan
from convrun.run_folder import RunFolder
from convrun.training.resuming.schedule import differences_text, schedule_changes

MACHINE = Machine(device="cpu", cores=1)


@pytest.fixture
def plan(tiny):
    return lambda *overrides: make_plan(tiny(*overrides), MACHINE)


def test_what_changes_no_schedule_is_not_told(plan):
    assert differences_text(plan(), plan("optimizer.weight_decay=0.5"), 6) == []


def test_a_longer_run_tells_steps_rates_and_that_it_is_another_run(plan, cosine_lr):
    """Epochs 2 to 3, at step 6: the rates by the released code's formula, not by ours."""
    assert differences_text(plan(), plan("training.epochs=3"), 6) == [
        "length: 16 steps before, 24 now, 18 to go",
        f"learning rate of the next step: {cosine_lr(6):.4g} before, {cosine_lr(6, total=24):.4g} now; of the last "
        f"one: {cosine_lr(15):.4g} before, {cosine_lr(23, total=24):.4g} now",
        "the 6 steps done followed the old schedule, so this is not the run that the recipe would have been from the "
        "start",
    ]


def test_a_longer_run_of_a_constant_schedule_is_the_one_that_it_would_have_been(plan):
    constant = "scheduler=constant"
    assert differences_text(plan(constant), plan(constant, "training.epochs=3"), 6) == [
        "length: 16 steps before, 24 now, 18 to go",
        "the 6 steps done had the learning rates that the recipe gives them now",
    ]


def test_a_finished_run_had_no_next_step(plan):
    lines = differences_text(plan(), plan("training.epochs=3"), 16)
    assert lines[1].startswith("learning rate of the next step: none before, 0.00")


def test_a_run_that_is_shortened_to_where_it_stands_ends_there(plan):
    lines = differences_text(plan(), plan("training.epochs=null", "training.steps=6"), 6)
    assert lines[0] == "length: 16 steps before, 6 now, so it ends here"
    assert "of the next step: 0.01" in lines[1]
    assert "none now" in lines[1]


@pytest.mark.parametrize(
    "change",
    [
        "optimizer.lr=1e-2",
        "scheduler.min_lr=1e-4",
        "scheduler=linear",
        "scheduler.warmup_steps=8",
        "optimizer.lr_for_batch=4",
    ],
)
def test_other_rates_are_told_whatever_key_they_come_from(change, plan):
    lines = differences_text(plan(), plan(change), 6)
    assert lines[0].startswith(
        f"learning rate of the next step: {plan().lr(6):.4g} before, {plan(change).lr(6):.4g} now"
    )
    assert not any(line.startswith("length") for line in lines)


def test_other_data_move_the_positions_and_that_is_told(plan):
    lines = differences_text(plan(), plan("data.train_images=80"), 6)
    assert lines[:2] == [
        "length: 16 steps before, 20 now, 14 to go",
        "an epoch: 8 steps before, 10 now; step 6 stands at another place of another epoch than it did, and which "
        "images come next follows from that",
    ]


def folder_of(tiny, path, *overrides):
    from convrun.recipe.writing import recipe_yaml

    folder = RunFolder(path)
    folder.recipe.write_text(recipe_yaml(tiny(*overrides)))
    return folder


def test_without_a_change_the_old_recipe_is_not_even_read(plan, tmp_path):
    assert schedule_changes(RunFolder(tmp_path), plan(), MACHINE, [], 6) == []


def test_a_run_cannot_be_made_shorter_than_it_is(plan, tiny, tmp_path):
    folder = folder_of(tiny, tmp_path)
    with pytest.raises(
        RunFolderError,
        match=r"makes the run 8 steps long now, but in .* it is 9 steps far; training\.steps=9 ends it here",
    ):
        schedule_changes(folder, plan("training.epochs=1"), MACHINE, [("training.epochs", 2, 1)], 9)


def test_an_old_recipe_that_has_no_plan_any_more_is_said(plan, tiny, tmp_path):
    folder = folder_of(tiny, tmp_path)
    folder.recipe.write_text(folder.recipe.read_text().replace("name: cosine", "name: of_a_plugin_that_is_gone"))
    (line,) = schedule_changes(folder, plan(), MACHINE, [("scheduler.name", "of_a_plugin_that_is_gone", "cosine")], 6)
    assert line.startswith("what the change does to the schedule cannot be told, the old recipe has no plan now: ")
    assert "of_a_plugin_that_is_gone" in line


def test_the_run_says_it_on_the_screen_and_in_its_log(train, tmp_path):
    with pytest.raises(Preempted):
        train(at={6: lambda: signal.raise_signal(signal.SIGTERM)})
    assert train("training.epochs=3", allow_changes=["training.epochs"]).step == 24
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("length: 16 steps before, 24 now, 18 to go\nlearning rate of the next step: ") == 1
