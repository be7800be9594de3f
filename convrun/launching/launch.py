"""`convrun launch`: a recipe and words -> checked jobs. `convrun.launching.sending` submits them."""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from convrun.contracts.launcher import Job, Launcher, Submission
from convrun.errors import UsageError
from convrun.launching.command_words import is_launcher_key, overrides_of
from convrun.launching.run_status import ALIVE, run_status
from convrun.launching.sweep import combinations, folder_name
from convrun.plan import Machine, Plan, make_plan
from convrun.recipe import Recipe, load_plugins_of, load_recipe
from convrun.recipe.inheritance import read_with_parents
from convrun.recipe.problems import Problem, RecipeError
from convrun.recipe.shipped import find_recipe
from convrun.registry import Component, registry
from convrun.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One run, ready to be submitted."""

    recipe: Recipe
    plan: Plan
    job: Job
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Launching:
    """Everything that one `convrun launch` would submit."""

    launcher: Launcher
    runs: tuple[Prepared, ...]
    submission: Submission
    notes: tuple[str, ...]

    @property
    def script(self) -> str:
        """The text that the launcher would submit."""
        return self.launcher.script(self.submission)


def prepare(
    source: str,
    words: Sequence[str] = (),
    *,
    launcher: str | None = None,
    sweep: Sequence[str] = (),
    output: Path | None = None,
    plugins: bool = True,
) -> Launching:
    """Checks everything that can be checked before the launch; writes nothing.

    Args:
        source: a recipe, or a run folder to resume.
        words: `KEY=VALUE` of the recipe or of the launcher.
        launcher: its name; by default the recipe's.
        sweep: `KEY=VALUE,VALUE` each; every combination is a run.
        output: the run folder (of a sweep: the folder of its runs); by default a new one under `runs/`.
        plugins: whether plugins are imported.

    Raises:
        RecipeError: names every problem of the recipe, the words and the plan.
        ConvrunError: every other problem.
    """
    goes_on = os.path.isdir(source)  # noqa: PTH112 - takes any text
    if goes_on and (sweep or output not in (None, Path(source))):
        raise UsageError(f"{source} is a run folder, which would be resumed: it takes neither --sweep nor --output")
    component = _launcher_of(source, words, launcher, plugins)
    changes = [word for word in words if not is_launcher_key(word, component)]
    if changes and goes_on and has_begun(Path(source)):
        raise UsageError(
            f"{changes[0]}: the run in {source} has begun, and is resumed unchanged; only the launcher's keys may "
            "differ (convrun run --allow-change changes others)"
        )
    chosen = combinations(sweep) if sweep else [[]]
    if keys := [axis for axis in sweep if is_launcher_key(axis, component) and len(chosen) > 1]:
        raise UsageError(f"--sweep {keys[0]}: a sweep is over keys of the recipe; write it before --sweep for all runs")
    planned = _planned(source, [[*words, *values] for values in chosen], component, launcher, plugins)
    first = planned[0][0]
    home = _home(first, len(chosen) > 1, Path(source) if goes_on else output)
    name = _job_name(first.name)
    runs = tuple(
        Prepared(recipe, plan, _job(name, home, i, values, len(chosen)), tuple(values))
        for i, ((recipe, plan), values) in enumerate(zip(planned, chosen, strict=True))
    )
    submission = Submission(name, home, tuple(run.job for run in runs))
    made: Launcher = first.launcher.create()
    return Launching(made, runs, submission, tuple(made.notes(submission)))


def _planned(
    source: str, words_of_each: Sequence[Sequence[str]], component: Component, name: str | None, plugins: bool
) -> list[tuple[Recipe, Plan]]:
    """Each run's recipe and plan; a problem that several runs share is reported once."""
    planned: list[tuple[Recipe, Plan]] = []
    problems: list[Problem] = []
    for words in words_of_each:
        try:
            recipe = _recipe(source, words, component, name, plugins)
            made: Launcher = recipe.launcher.create()
            planned.append((recipe, make_plan(recipe, Machine(processes=made.processes or 1))))
        except RecipeError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise RecipeError(problems)
    return planned


def _launcher_of(source: str, words: Sequence[str], name: str | None, plugins: bool) -> Component:
    """The launcher, in order of precedence: the option's, a word's, the recipe's, else `local`."""
    tree = read_with_parents(find_recipe(source))
    if plugins:
        load_plugins_of(tree)
    for word in words:
        key, _, value = word.partition("=")
        if name is None and key in ("launcher", "launcher.name"):
            name = value
    node = tree.at(("launcher", "name"))
    written = node.value if node is not None and isinstance(node.value, str) else "local"
    return registry.find("launcher", name or written)


def _recipe(source: str, words: Sequence[str], component: Component, name: str | None, plugins: bool) -> Recipe:
    """The recipe with the words applied, or every problem of both."""
    choice = [f"launcher.name={name}"] if name is not None else []
    problems: list[Problem] = []
    try:
        overrides = overrides_of(words, component)
    except RecipeError as error:
        problems += error.problems
        wrong = {problem.place.text for problem in error.problems if problem.place}
        overrides = overrides_of([word for word in words if " ".join(word.splitlines()) not in wrong], component)
    try:
        recipe = load_recipe(source, [*choice, *overrides], plugins=plugins)
    except RecipeError as error:
        raise RecipeError([*problems, *error.problems]) from None
    if problems:
        raise RecipeError(problems)
    return recipe


def _home(recipe: Recipe, is_sweep: bool, output: Path | None) -> Path:
    """The folder of the run, or of the sweep's runs; absolute, symbolic links kept."""
    folder = RunFolder(output) if output is not None else RunFolder.named(recipe.name, recipe.hash)
    if is_sweep and output is None:
        folder = RunFolder(folder.path.with_name(f"{folder.path.name}-sweep"))
    _check_free(folder, is_sweep)
    return folder.path.absolute()


def has_begun(folder: Path) -> bool:
    """Whether the run has saved a checkpoint, so that its recipe is fixed."""
    return any((folder / "checkpoints").glob("step-*"))


def _check_free(folder: RunFolder, is_sweep: bool) -> None:
    if not folder.path.exists():
        return
    if folder.holds_a_run() and not is_sweep:
        run = run_status(folder.path)
        if run.state in ALIVE:
            raise UsageError(f"the run in {folder.path} is {run.state}; convrun status {folder.path} says more")
        if run.state == "finished":
            raise UsageError(f"the run in {folder.path} has finished; launch its recipe for another run")
        return
    if not folder.path.is_dir() or any(folder.path.iterdir()):
        raise UsageError(f"{folder.path} is neither empty nor a run folder; choose another with --output")


def _job_name(recipe_name: str) -> str:
    """A unique job name, of characters that are plain in schedulers, lists and shells."""
    plain = re.sub(r"[^A-Za-z0-9.+-]+", "_", recipe_name).strip("_.-")[:60]
    return f"{plain or 'run'}-{secrets.token_hex(4)}"


def _job(name: str, home: Path, index: int, values: Sequence[str], count: int) -> Job:
    folder = home / folder_name(index, count, values) if count > 1 else home
    return Job(name, folder, Path.cwd(), secrets.token_hex(8))
