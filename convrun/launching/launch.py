"""`convrun launch`: from a recipe and words to jobs, everything checked before anything is sent."""

from __future__ import annotations

import dataclasses
import datetime
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from convrun.components.launchers import Job, Launcher, LaunchError, Submission
from convrun.display.recipe_text import recipe_yaml
from convrun.errors import RecipeError, UsageError
from convrun.launching.record import CANCELLED, Launch
from convrun.launching.run_state import ALIVE, state_of
from convrun.launching.sweep import combinations, folder_name
from convrun.launching.words import is_launcher_key, overrides_of
from convrun.plan import Machine, Plan, make_plan
from convrun.recipe import Recipe, load_plugins_of, load_recipe
from convrun.recipe.inheritance import read_with_parents
from convrun.recipe.problems import Problem
from convrun.recipe.shipped import find_recipe
from convrun.registry import Component, registry
from convrun.run_folder import RunFolder, explained


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One run that is ready to be sent."""

    recipe: Recipe
    plan: Plan
    job: Job
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Launching:
    """Everything that one `convrun launch` would send."""

    launcher: Launcher
    runs: tuple[Prepared, ...]
    submission: Submission
    notes: tuple[str, ...]

    @property
    def script(self) -> str:
        """What the launcher would be given."""
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
    """Checks everything that can be checked here; writes nothing.

    Args:
        source: a recipe, or a run folder to go on with.
        words: `KEY=VALUE` of the recipe or of the launcher.
        launcher: its name; by default the recipe's.
        sweep: `KEY=VALUE,VALUE` each; every combination is a run.
        output: the run folder (of a sweep: the folder of its runs); by default a new one under `runs/`.
        plugins: whether plugins are imported.

    Raises:
        RecipeError: every problem of the recipe, the words and the plan.
        ConvrunError: the rest.
    """
    goes_on = os.path.isdir(source)  # noqa: PTH112 - takes any text
    if goes_on and (sweep or output not in (None, Path(source))):
        raise UsageError(f"{source} is a run folder to go on with: it takes neither --sweep nor --output")
    component = _launcher_of(source, words, launcher, plugins)
    changes = [word for word in words if not is_launcher_key(word, component)]
    if changes and goes_on and _has_begun(Path(source)):
        raise UsageError(
            f"{changes[0]}: the run in {source} has begun, and goes on as it is; only the launcher's keys may differ "
            "(convrun run --allow-change changes others)"
        )
    chosen = combinations(sweep) if sweep else [[]]
    if keys := [axis for axis in sweep if is_launcher_key(axis, component) and len(chosen) > 1]:
        raise UsageError(f"--sweep {keys[0]}: a sweep is over keys of the recipe; write it before --sweep for all runs")
    recipes = [_recipe(source, [*words, *values], component, launcher, plugins) for values in chosen]
    made: Launcher = recipes[0].launcher.create()
    plans = [make_plan(recipe, Machine(processes=made.processes or 1)) for recipe in recipes]
    home = _home(recipes[0], len(recipes) > 1, Path(source) if goes_on else output)
    runs = tuple(
        Prepared(recipe, plan, _job(home, i, values, len(recipes)), tuple(values))
        for i, (recipe, plan, values) in enumerate(zip(recipes, plans, chosen, strict=True))
    )
    whole = f"{recipes[0].name}-{secrets.token_hex(4)}"
    jobs = tuple(dataclasses.replace(run.job, name=whole) for run in runs)
    submission = Submission(whole, home, jobs)
    return Launching(made, runs, submission, tuple(made.notes(submission)))


def _launcher_of(source: str, words: Sequence[str], name: str | None, plugins: bool) -> Component:
    """The launcher that counts: the option's, a word's, the recipe's, else `local`."""
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
    """The recipe with the words laid over it, or every problem of both."""
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
    """The folder of the run, or of the sweep's runs; absolute, links kept as the user wrote them."""
    folder = RunFolder(output) if output is not None else RunFolder.named(recipe.name, recipe.hash)
    if is_sweep and output is None:
        folder = RunFolder(folder.path.with_name(f"{folder.path.name}-sweep"))
    _check_free(folder, is_sweep)
    return folder.path.absolute()


def _has_begun(folder: Path) -> bool:
    """Whether the run has saved anything, so that its recipe is settled."""
    return any((folder / "checkpoints").glob("step-*"))


def _check_free(folder: RunFolder, is_sweep: bool) -> None:
    if not folder.path.exists():
        return
    if folder.holds_a_run() and not is_sweep:
        state = state_of(folder.path)
        if state.state in ALIVE:
            raise UsageError(f"the run in {folder.path} is {state.state}; convrun status {folder.path} says more")
        if state.state == "finished":
            raise UsageError(f"the run in {folder.path} is finished; launch the recipe for another one")
        return
    if not folder.path.is_dir() or any(folder.path.iterdir()):
        raise UsageError(f"{folder.path} is neither empty nor a run folder; choose another with --output")


def _job(home: Path, index: int, values: Sequence[str], count: int) -> Job:
    folder = home / folder_name(index, count, values) if count > 1 else home
    return Job("", folder, Path.cwd(), secrets.token_hex(8))


def send(launching: Launching) -> list[Launch]:
    """Makes the run folders and sends the jobs; what was made is removed again if they are not accepted.

    Raises:
        LaunchError: the launcher's own reason.
        RunFolderError: a folder cannot be written.
    """
    submission = launching.submission
    made = [folder for folder in (submission.home, *submission.home.parents) if not folder.exists()]
    new = [] if submission.home.exists() else [submission.home]
    with explained(f"the run folder {submission.home}", "choose another with --output"):
        (submission.home / "logs").mkdir(parents=True, exist_ok=True)
        records = [_write(run, job, submission) for run, job in zip(launching.runs, submission.jobs, strict=True)]
    try:
        infos = launching.launcher.submit(submission)
    except BaseException:
        for folder in new:
            shutil.rmtree(folder, ignore_errors=True)
        for folder in made[1:]:  # its parents, as far as nobody else has put anything there
            try:
                folder.rmdir()
            except OSError:
                break
        raise
    if len(infos) != len(records):
        raise LaunchError(f"the launcher sent {len(records)} runs and tells of {len(infos)}: it breaks its contract")
    sent = [dataclasses.replace(record, info=info) for record, info in zip(records, infos, strict=True)]
    for record, job in zip(sent, submission.jobs, strict=True):
        with explained(f"{job.folder}/launch.json", "the job was sent; free space, and look at it with the scheduler"):
            record.write(job.folder)
    return sent


def _write(run: Prepared, job: Job, submission: Submission) -> Launch:
    """The run folder before the job is sent: the recipe, the plan, who launches it; no traces of an earlier launch."""
    folder = RunFolder(job.folder)
    (job.folder / "logs").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(job.folder / "logs" / "exits", ignore_errors=True)
    for name in (CANCELLED, "process.json"):
        (job.folder / "logs" / name).unlink(missing_ok=True)
    if not _has_begun(job.folder):
        folder.write("recipe.yaml", recipe_yaml(run.recipe))
        folder.write_json("plan.json", run.plan.as_dict())
    record = Launch(
        nonce=job.nonce,
        name=job.name,
        launcher=run.recipe.launcher.as_written(),
        working_folder=str(job.working_folder),
        command=tuple(sys.argv),
        host=socket.gethostname(),
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        plugins=tuple(run.recipe.plugins),
        sweep=submission.home.name if len(submission.jobs) > 1 else "",
        values=dict(value.split("=", 1) for value in run.values),
    )
    record.write(job.folder)
    return record
