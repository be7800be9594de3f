"""The command line, assembled. The verbs are in `convrun.verbs`, one file a group: each parses, calls, prints."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from convrun.verbs import components, launching, recipes, training
from convrun.verbs.synonyms import meant


class _Verbs(TyperGroup):
    """Answers an unknown verb with the one that was meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        verbs = self.list_commands(ctx)
        if args[0] not in verbs:
            guess = meant(args[0], verbs)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean 'convrun {guess}'?" if guess else ""))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="convrun",
    cls=_Verbs,
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
