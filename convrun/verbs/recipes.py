"""The verbs about recipes: validate, show, copy, import, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from convrun.text.json_text import json_text
from convrun.verbs.options import AsFormat, NoPlugins, RecipeAndOverrides

app = typer.Typer()


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
    from convrun.validation.report import validate_and_print

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


@app.command(epilog="Examples: convrun show convnext_tiny_in1k --origin  |  convrun show recipe.yaml > resolved.yaml")
def show(
    arguments: RecipeAndOverrides = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
    no_plugins: NoPlugins = False,
    as_format: AsFormat = "text",
) -> None:
    """Print a recipe as resolved: parents merged, overrides applied, defaults spelled out."""
    from convrun.recipe import load_recipe, one_recipe
    from convrun.recipe.writing import origins_text, recipe_yaml

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
