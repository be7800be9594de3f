"""What a run says when it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convrun.recipe import Recipe

if TYPE_CHECKING:
    from convrun.training.run import Outcome


def outcome_text(recipe: Recipe, outcome: Outcome) -> str:
    """The result, where the run is, and what to do next."""
    folder = outcome.folder
    if outcome.was_finished:
        lines = [f"this run is finished already, after step {outcome.step}"]
    else:
        lines = [f"finished after step {outcome.step}"]
    if outcome.stopped_because:
        lines[0] += f": {outcome.stopped_because}"
    lines.append(f"best top-1  {_result(recipe, outcome)}")
    lines += [
        f"run folder  {folder}",
        f"weights     {folder / 'weights'} (timm.create_model loads them)",
        "next        " + f"convrun show {folder} --origin",
        "            " + f"tensorboard --logdir {folder.parent}",
        "            " + f"convrun run {recipe.name} seed=1",
    ]
    return "\n".join(lines)


def _result(recipe: Recipe, outcome: Outcome) -> str:
    if outcome.top1 is None:
        return "none: the recipe evaluates nothing"
    weights = recipe.evaluation.report if recipe.evaluation else "model"
    text = f"{outcome.top1:.2f} % ({weights} weights)"
    if recipe.expect and recipe.expect.top1 is not None:
        text += f", expected {recipe.expect.top1:g} %"
    return text
