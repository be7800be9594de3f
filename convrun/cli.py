"""The command line, assembled. The verbs are in `convrun.verbs`, one file a group: each parses, calls, prints."""

from __future__ import annotations

from typing import Annotated

import typer

from convrun.verbs import components, launching, recipes, training

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
for group in (training, recipes, components, launching):
    app.registered_commands += group.app.registered_commands


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from convrun import __version__

        typer.echo(f"convrun {__version__}")
        raise typer.Exit
