"""The command line: a verb parses, calls the library, renders. No logic lives here."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from convrun.cli_launching import app as launching_app
from convrun.cli_launching import print_runs
from convrun.cli_options import AsFormat, NoPlugins, RecipeAndOverrides
from convrun.display.json_text import json_text
from convrun.errors import UsageError

app = typer.Typer(
    name="convrun",
    help="Train ConvNeXt image classifiers from declarative recipes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="A recipe is a path or the name of a shipped recipe (convrun list recipes). "
    "--debug, with any verb, shows tracebacks.",
)
app.registered_commands += launching_app.registered_commands


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from convrun import __version__

        typer.echo(f"convrun {__version__}")
        raise typer.Exit


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
    from convrun.training.signals import StopRequest, let_through

    with StopRequest() as stop:
        from convrun.distributed.world import world_of

        if world_of(os.environ).size == 1:
            let_through()  # several hear signals once they can agree on who tells the user (convrun.distributed.member)
        from convrun.recipe import load_recipe, one_recipe

        source, overrides = one_recipe(arguments or [])
        if os.path.isdir(source):  # noqa: PTH112 - takes any text
            if output is not None and output.resolve() != Path(source).resolve():
                raise UsageError(f"{source} is a run folder, and --output names another; drop one of them")
            output = Path(source)
        recipe = load_recipe(source, overrides, plugins=not no_plugins)
        from convrun.display.outcome_text import outcome_text
        from convrun.distributed.group import Group
        from convrun.distributed.processes import checked_devices, in_each_process
        from convrun.plan import Machine, make_plan

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


@app.command(
    epilog="Examples: convrun validate recipe.yaml  |  convrun validate convnext_tiny_in1k --processes 32 --build"
)
def validate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE]... [KEY=VALUE]...", help="Recipes (default: ./recipe.yaml), then overrides."),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Plan for this many processes, one a GPU.")] = 1,
    build: Annotated[bool, typer.Option("--build", help="Also build the model: parameters, GMACs, groups.")] = False,
    groups: Annotated[bool, typer.Option("--groups", help="With --build: every parameter of each group.")] = False,
    data: Annotated[bool, typer.Option("--data", help="Also open the data: classes, images, first problem.")] = False,
    no_plugins: NoPlugins = False,
    as_format: AsFormat = "text",
) -> None:
    """Check recipes and print the plan, without training; nothing is written."""
    from convrun.display.validation import validate_and_print

    code = validate_and_print(
        arguments or [],
        processes=processes,
        build=build,
        groups=groups,
        data=data,
        plugins=not no_plugins,
        as_json=as_format == "json",
    )
    raise typer.Exit(code)


@app.command(name="list", epilog="Examples: convrun list components 'convnext*' --kind model  |  convrun list recipes")
def list_(
    what: Annotated[Literal["components", "recipes", "runs"], typer.Argument(help="What to list.")],
    pattern: Annotated[
        str, typer.Argument(help="A shell pattern, or part of a name; for runs also a folder (default: runs).")
    ] = "*",
    kind: Annotated[str | None, typer.Option(help="Only components of this kind.")] = None,
    no_plugins: NoPlugins = False,
    as_format: AsFormat = "text",
) -> None:
    """List components, the shipped recipes, or runs."""
    if what == "runs":
        print_runs(pattern, as_format)
        return
    from convrun.display.lists import listed

    rows, notes = listed(what, pattern, kind, plugins=not no_plugins)
    if as_format == "json":
        typer.echo(json_text(rows))
        return
    from convrun.display.component_text import table

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    typer.echo(table(rows, width) if rows else f"nothing matches {pattern!r}")
    for note in notes:
        typer.echo(note, err=True)


@app.command(epilog="Examples: convrun describe optimizer/adamw  |  convrun describe augmentation")
def describe(
    name: Annotated[str, typer.Argument(help="KIND/NAME, NAME if only one kind has it, or KIND.")],
    no_plugins: NoPlugins = False,
    as_format: AsFormat = "text",
) -> None:
    """Describe a component (its keys, where it is defined, a snippet) or a kind (its contract)."""
    from convrun.display.lists import described

    text, data = described(name, plugins=not no_plugins)
    typer.echo(json_text(data) if as_format == "json" else text)


@app.command(epilog="Examples: convrun show convnext_tiny_in1k --origin  |  convrun show recipe.yaml > resolved.yaml")
def show(
    arguments: RecipeAndOverrides = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
    no_plugins: NoPlugins = False,
    as_format: AsFormat = "text",
) -> None:
    """Print a recipe as resolved: parents merged, overrides applied, defaults spelled out."""
    from convrun.display.recipe_text import origins_text, recipe_yaml
    from convrun.recipe import load_recipe, one_recipe

    source, overrides = one_recipe(arguments or [])
    recipe = load_recipe(source, overrides, plugins=not no_plugins)
    if as_format == "json":
        typer.echo(json_text(recipe.resolved()))
    else:
        typer.echo(origins_text(recipe) if origin else recipe_yaml(recipe).rstrip())


@app.command(epilog="Example: convrun copy convnext_tiny_in1k mine.yaml")
def copy(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, or a path.")],
    destination: Annotated[Path | None, typer.Argument(help="A file or a folder (default: ./NAME.yaml).")] = None,
) -> None:
    """Copy a recipe to edit it."""
    from convrun.recipe.shipped import copy_recipe

    copied = copy_recipe(recipe, destination)
    typer.echo(f"{copied}: edit it, then convrun validate {copied}")


@app.command(
    name="import",
    epilog="Examples: convrun import -- torchrun --nproc_per_node=8 main.py --model convnext_tiny --drop_path 0.1  |  "
    "convrun import --from train.sh -o mine.yaml  |  convrun import args.yaml --processes 8",
)
def import_(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="A command after --, or the args.yaml of timm's train.py."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Read the command from this file; - is standard input.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file, which is new.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many processes train, where the command does not say.")
    ] = None,
    head: Annotated[
        Literal["keep", "reinit"] | None,
        typer.Option(help="Whether the loaded weights' head is kept, where the command does not say."),
    ] = None,
) -> None:
    """Turn a training command (ConvNeXt's main.py, timm's train.py) into a recipe."""
    from convrun.importing import import_arguments

    imported = import_arguments(words or [], source, processes=processes, head=head)
    if output is None:
        typer.echo(imported.text.rstrip())
    else:
        imported.write(output)
        typer.echo(f"{output}: look at its comments, then convrun validate {output}")


@app.command(epilog="Example: convrun schema > recipe.schema.json")
def schema(no_plugins: NoPlugins = False) -> None:
    """Print the JSON Schema of recipes, all components included, for editors."""
    from convrun.plugins import load_plugins
    from convrun.recipe.schema import recipe_schema

    if not no_plugins:
        load_plugins(folder=Path("plugins"))
    typer.echo(json_text(recipe_schema()))
