"""The verbs about launched runs: launch, status, logs, cancel; and what `list runs` prints."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from convrun.errors import UsageError
from convrun.text.json_text import json_text
from convrun.verbs.options import AsFormat, Format, NoPlugins

app = typer.Typer()


class _WithSweep(TyperCommand):
    """`--sweep A=1,2 B=3,4` takes all words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        from convrun.launching.sweep import with_every_axis_named

        return super().parse_args(ctx, with_every_axis_named(args))


@app.command(
    cls=_WithSweep,
    epilog="Examples: convrun launch recipe.yaml --slurm nodes=4 gpus_per_node=8 time=1-00:00:00  |  convrun launch "
    "recipe.yaml --slurm --dry-run  |  convrun launch recipe.yaml --local --sweep optimizer.lr=1e-3,2e-3 seed=0,1  |  "
    "convrun launch runs/NAME/RUN (goes on with that run). Keys of a launcher: convrun describe launcher/slurm",
)
def launch(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="A path, a shipped recipe or a run folder (default: ./recipe.yaml), then keys: with a dot the "
            "recipe's, without one the launcher's (or, if it has none of that name, the recipe's: seed=1).",
            show_default=False,
        ),
    ] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="As a Slurm job.")] = False,
    local: Annotated[bool, typer.Option("--local", help="In the background of this machine.")] = False,
    launcher: Annotated[str | None, typer.Option(help="By this launcher (default: the recipe's, else local).")] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE...", help="A run for each combination of all words up to the next option."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder, or that of a sweep's; by default a new one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and the script; submit nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the log; end with the run's exit code.")] = False,
    no_plugins: NoPlugins = False,
) -> None:
    """Check a recipe and launch it: as a Slurm job, in the background, or with a plugin's launcher."""
    from convrun.launching.launch import prepare
    from convrun.launching.launch_text import dry_run_text, sent_text
    from convrun.launching.sending import send
    from convrun.recipe import one_recipe

    chosen = [name for name, is_set in (("slurm", slurm), ("local", local), (launcher, launcher)) if is_set]
    if len(chosen) > 1:
        raise UsageError("--slurm, --local and --launcher choose one launcher: give one of them")
    if wait and (sweep or dry_run):
        raise UsageError(f"--wait follows one run: it does not go with {'--sweep' if sweep else '--dry-run'}")
    source, words = one_recipe(arguments or [])
    launching = prepare(
        source,
        words,
        launcher=chosen[0] if chosen else None,
        sweep=sweep or [],
        output=output,
        plugins=not no_plugins,
    )
    if dry_run:
        typer.echo(dry_run_text(launching))
        return
    typer.echo(sent_text(launching, send(launching)))
    if wait:
        from convrun.launching.log_files import LOG
        from convrun.launching.watching import follow_run

        home = launching.submission.home
        ended = follow_run(home, home / LOG, sys.stdout, is_alive=True)
        raise typer.Exit(ended.exit_code or 0)


@app.command(epilog="Examples: convrun status  |  convrun status runs/digits_demo/20260101-120000-ab12cd --format json")
def status(
    run: Annotated[str | None, typer.Argument(help="A run folder, or its name below runs/ (default: all).")] = None,
    as_format: AsFormat = "text",
) -> None:
    """Show how far a run is, where it runs, or what it waits for."""
    if run is None:
        print_runs("*", as_format)
        return
    from convrun.launching.finding import run_named
    from convrun.launching.run_status import run_status
    from convrun.launching.run_text import run_text

    found = run_status(run_named(run))
    typer.echo(json_text(found.as_dict()) if as_format == "json" else run_text(found))


@app.command(epilog="Examples: convrun logs RUN --follow  |  convrun logs RUN --rank 3")
def logs(
    run: Annotated[str, typer.Argument(help="A run folder, or its name below runs/.")],
    rank: Annotated[
        int | None, typer.Option(min=0, help="What this process printed (default: the launch's log).")
    ] = None,
    is_followed: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the run has ended.")] = False,
) -> None:
    """Print what a run printed."""
    from convrun.launching.finding import run_named
    from convrun.launching.watching import show_log

    show_log(run_named(run), rank, is_followed=is_followed, out=sys.stdout)


@app.command(epilog="Example: convrun cancel runs/digits_demo/20260101-120000-ab12cd")
def cancel(run: Annotated[str, typer.Argument(help="A run folder, or its name below runs/.")]) -> None:
    """Ask a run to save and end; it is not requeued."""
    from convrun.launching.cancelling import cancel as cancel_run
    from convrun.launching.finding import run_named

    typer.echo(cancel_run(run_named(run)))


def print_runs(pattern: str, as_format: Format) -> None:
    """A table of runs, or the same as data."""
    from convrun.launching.finding import runs_matching
    from convrun.launching.run_status import run_statuses
    from convrun.launching.run_table import runs_text

    runs = run_statuses(runs_matching(pattern))
    if as_format == "json":
        typer.echo(json_text([run.as_dict() for run in runs]))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    nothing = f"no run matches {pattern!r}" if pattern != "*" else "there are no runs below runs/"
    typer.echo(runs_text(runs, width) if runs else nothing)
