"""The verbs that say what there is: list, describe."""

from __future__ import annotations

import shutil
import sys
from typing import Annotated, Literal

import typer

from convrun.text.json_text import json_text
from convrun.verbs.launching import print_runs
from convrun.verbs.options import AsFormat, NoPlugins

app = typer.Typer()


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
    from convrun.text.tables import table

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
