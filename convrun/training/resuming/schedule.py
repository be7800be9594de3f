"""What a change of the recipe in the midst of a run does to its length and its learning rates."""

from __future__ import annotations

from typing import Any

from convrun.contracts.data import DataFacts
from convrun.errors import ConvrunError, RunFolderError
from convrun.plan import Machine, Plan, make_plan
from convrun.recipe import load_recipe
from convrun.run_folder import RunFolder


def schedule_changes(
    folder: RunFolder, plan: Plan, machine: Machine, changes: list[tuple[str, Any, Any]], step: int
) -> list[str]:
    """Lines for the user, none if the schedule is as before.

    Args:
        folder: holds the recipe as it was.
        plan: of the recipe as it is now.
        machine: where the run goes on.
        changes: of the recipe, as (key, before, after).
        step: optimizer steps done.

    Raises:
        RunFolderError: the run would now be over before where it stands.
    """
    if not changes:
        return []
    check_length(folder, plan, step)
    is_other_data = any(key.partition(".")[0] == "data" for key, _, _ in changes)
    facts = None if is_other_data else DataFacts(plan.data_classes, plan.train_images, plan.val_images)
    try:
        before = make_plan(load_recipe(folder.recipe, plugins=False), machine, facts)
    except ConvrunError as error:  # the old data may be gone, or the plugin of the old schedule
        reason = str(error).splitlines()[0]
        return [f"what the change does to the schedule cannot be told, the old recipe has no plan now: {reason}"]
    return differences_text(before, plan, step)


def check_length(folder: RunFolder, plan: Plan, step: int) -> None:
    """Raises RunFolderError if a run that stands after `step` cannot follow a plan that is shorter."""
    if plan.total_steps < step:
        raise RunFolderError(
            f"the recipe makes the run {plan.total_steps:,} steps long now, but in {folder.path} it is {step:,} steps "
            f"far; training.steps={step} ends it here, a shorter run goes to another folder (--output)"
        )


def differences_text(before: Plan, now: Plan, step: int) -> list[str]:
    """The differences of two plans' schedules, seen from after `step` steps."""
    lines = []
    if before.total_steps != now.total_steps:
        left = now.total_steps - step
        left_text = f"{left:,} to go" if left else "so it ends here"
        lines.append(f"length: {before.total_steps:,} steps before, {now.total_steps:,} now, {left_text}")
    if before.steps_per_epoch != now.steps_per_epoch:
        lines.append(
            f"an epoch: {before.steps_per_epoch:,} steps before, {now.steps_per_epoch:,} now; step {step:,} stands at "
            "another place of another epoch than it did, and which images come next follows from that"
        )
    following = _next_lr(before, step), _next_lr(now, step)
    last = before.lr(before.total_steps - 1), now.lr(now.total_steps - 1)
    if following[0] != following[1] or last[0] != last[1]:
        lines.append(
            f"learning rate of the next step: {following[0]} before, {following[1]} now; of the last one: "
            f"{last[0]:.4g} before, {last[1]:.4g} now"
        )
    if lines:
        lines.append(_past(before, now, step))
    return lines


def _next_lr(plan: Plan, step: int) -> str:
    return f"{plan.lr(step):.4g}" if step < plan.total_steps else "none"


def _past(before: Plan, now: Plan, step: int) -> str:
    if any(before.lr(s) != now.lr(s) for s in range(step)):
        return (
            f"the {step:,} steps done followed the old schedule, so this is not the run that the recipe would have "
            "been from the start"
        )
    return f"the {step:,} steps done had the learning rates that the recipe gives them now"
