"""How a run ended."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from convrun.distributed.failing.failure import Failure
from convrun.errors import Diverged, Interrupted, Preempted
from convrun.models.shapes import SMALLER, V1, V2
from convrun.recipe import Recipe, shipped_recipes
from convrun.run_folder import State


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: the run folder.
        top1: the best reported top-1 in percent; None if nothing was evaluated.
        step: optimizer steps done.
        was_finished: there was nothing left to do.
        stopped_because: why a callback ended it, if one did.
    """

    folder: Path
    top1: float | None
    step: int
    was_finished: bool = False
    stopped_because: str = ""


def state_of_failure(failure: Failure) -> State:
    """The state of a run that ended so on another rank."""
    states: dict[int, State] = {
        Diverged.exit_code: "diverged",
        Interrupted.exit_code: "interrupted",
        Preempted.exit_code: "preempted",
    }
    return states.get(failure.exit_code, "failed")


def state_after(error: BaseException) -> State:
    """The state of a run that ended with an error here."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Preempted):
        return "preempted"
    return "diverged" if isinstance(error, Diverged) else "failed"


def outcome_text(recipe: Recipe, outcome: Outcome) -> str:
    """The result, where the run is, and what to do next."""
    folder = shlex.quote(str(outcome.folder))
    if outcome.was_finished:
        lines = [f"this run is finished already, after step {outcome.step}"]
    else:
        lines = [f"finished after step {outcome.step}"]
    if outcome.stopped_because:
        lines[0] += f": {outcome.stopped_because}"
    lines.append(f"best top-1  {_result(recipe, outcome)}")
    lines += [
        f"run folder  {outcome.folder}",
        f"weights     {outcome.folder / 'weights'} ({_who_loads(recipe)})",
    ]
    commands = [f"convrun show {folder} --origin"]
    if any(choice.name == "tensorboard" for choice in recipe.loggers):
        commands.append(f"tensorboard --logdir {folder}")
    commands.append(f"convrun run {_again(recipe)} seed={recipe.seed + 1}")
    return "\n".join([*lines, *(f"{'' if i else 'next':<12}{command}" for i, command in enumerate(commands))])


def _who_loads(recipe: Recipe) -> str:
    """Free shapes, isotropic models and those of plugins have no name in timm."""
    name = recipe.model.name
    is_timms = name.startswith("timm/") or name in V1 or name.partition("_")[2] in (SMALLER | V2)
    return "safetensors; timm.create_model loads them" if is_timms else "safetensors"


def _again(recipe: Recipe) -> str:
    """What names this recipe on a command line."""
    shipped = shipped_recipes().get(recipe.name)
    is_shipped = shipped is not None and shipped.resolve() == recipe.source.resolve()
    return recipe.name if is_shipped else shlex.quote(str(recipe.source))


def _result(recipe: Recipe, outcome: Outcome) -> str:
    if outcome.top1 is None:
        return "none: the recipe evaluates nothing"
    weights = recipe.evaluation.report if recipe.evaluation else "model"
    text = f"{outcome.top1:.2f} % ({weights} weights)"
    # With overrides it is another training than the one the figure is of.
    if recipe.expect and recipe.expect.top1 is not None and not recipe.is_overridden():
        text += f", expected {recipe.expect.top1:g} %"
    return text
