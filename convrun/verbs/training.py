"""The verb that trains: run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from convrun.errors import UsageError
from convrun.verbs.options import NoPlugins, RecipeAndOverrides

app = typer.Typer()


@app.command(
    epilog="Examples: convrun run digits_demo  |  convrun run recipe.yaml optimizer.lr=1e-3 --devices 4  |  "
    "convrun run runs/digits_demo/20260101-120000-ab12cd (goes on with that run)"
)
def run(
    arguments: RecipeAndOverrides = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run folder; by default a new one.")] = None,
    resume: Annotated[
        Literal["auto", "never", "must"],
        typer.Option(help="auto: go on if the folder holds a checkpoint; never, must: refuse otherwise."),
    ] = "auto",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = "auto",
    devices: Annotated[
        str, typer.Option(metavar="N|auto", help="Processes to start, one a device; auto: all visible GPUs, else one.")
    ] = "auto",
    allow_change: Annotated[
        list[str] | None, typer.Option(help="Go on although this recipe key differs from the run's.")
    ] = None,
    no_plugins: NoPlugins = False,
) -> None:
    """Train a recipe; started again on its run folder, it goes on exactly where it stopped."""
    from convrun.process.signals import StopRequest, let_through

    with StopRequest() as stop:
        from convrun.process.world import world_of

        if world_of(os.environ).size == 1:
            let_through()  # several hear signals once they can agree on who tells the user (meeting.rank)
        from convrun.recipe import load_recipe, one_recipe

        source, overrides = one_recipe(arguments or [])
        if os.path.isdir(source):  # noqa: PTH112 - takes any text
            if output is not None and output.resolve() != Path(source).resolve():
                raise UsageError(f"{source} is a run folder, and --output names another; drop one of them")
            output = Path(source)
        recipe = load_recipe(source, overrides, plugins=not no_plugins)
        from convrun.distributed.group import Group
        from convrun.distributed.meeting.processes import checked_devices, in_each_process
        from convrun.plan import Machine, make_plan
        from convrun.training.outcome import outcome_text

        count = checked_devices(devices)

        def job(group: Group) -> None:
            from convrun.training.run import run as train

            stop.check()
            changes = allow_change or []
            outcome = train(recipe, output, resume=resume, device=device, allow_changes=changes, stop=stop, group=group)
            if group.is_first:
                typer.echo(outcome_text(recipe, outcome))

        is_new = output is None or not (output / "plan.json").exists()
        # A run that goes on has a micro-batch already.
        check = (lambda processes: make_plan(recipe, Machine(processes))) if is_new else None
        in_each_process(job, stop, devices=count, device=device, check=check)
