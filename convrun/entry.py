"""The console script: errors become messages and exit codes, and a plain `validate` answers in a blink.

typer's import and its handling of one command take longer than checking a recipe does (benchmarks/validate.py), so
`convrun validate RECIPE... [KEY=VALUE ...]` without options goes past it. The verb itself is in `convrun.cli` like
every other; both call the same function.
"""

from __future__ import annotations

import atexit
import gc
import sys
from typing import NoReturn

from convrun.errors import ConvrunError
from convrun.process.standard_output import OutputError, discard_output, prepare_output
from convrun.text.secrets import masked


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = "--debug" in sys.argv[1:]
    if arguments[:1] != ["run"]:
        _to_its_end(arguments, debug)
        return
    from convrun.process.signals import held_back

    with held_back():  # before anything is imported that takes long
        _to_its_end(arguments, debug)


def _to_its_end(arguments: list[str], debug: bool) -> None:
    prepare_output()
    try:
        try:
            _answer(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # a reader that has gone shows here, not when Python shuts down
    except ConvrunError as error:
        _end(error, debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has gone (`| head`)
        discard_output()
        sys.exit(1)
    except OutputError as error:
        discard_output()
        _end(ConvrunError(f"the output cannot be written: {error.strerror}"), debug)


def _answer(arguments: list[str]) -> None:
    if arguments[:1] == ["validate"] and not any(a.startswith("-") for a in arguments):
        _collect_no_garbage()
        from convrun.validation.report import validate_and_print

        sys.exit(validate_and_print(arguments[1:]))
    from convrun.process.threads import limit_spinning

    limit_spinning()  # before any verb loads torch
    from convrun.cli import app

    app(args=arguments, prog_name="convrun")


def _collect_no_garbage() -> None:
    """For the rest of this process, which is short: 3 of its 97 ms go into collections while modules are imported, and
    10 into the last one, when Python shuts down; that one passes over what is frozen."""
    gc.disable()
    atexit.register(gc.freeze)


def _end(error: ConvrunError, debug: bool) -> NoReturn:
    if debug:
        import traceback

        print(masked("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print(masked(error.report()), file=sys.stderr)
    sys.exit(error.exit_code)
