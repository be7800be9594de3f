"""Arguments and options that several verbs take."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Format = Literal["text", "json"]
RecipeAndOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE] [KEY=VALUE]...",
        help="A path, a shipped recipe or a run folder (default: ./recipe.yaml), then overrides.",
        show_default=False,
    ),
]
NoPlugins = Annotated[bool, typer.Option("--no-plugins", help="Load no plugins.")]
AsFormat = Annotated[Format, typer.Option("--format", help="How to print.")]
