"""How long `convrun validate RECIPE` takes beside importing the libraries it stands on.

The two commands take turns (A B A B ...), each a whole process, so that whatever else the machine does meets both.
The claim is about the median of the pairs' ratios, by the clock and by processor time: at most 1.2 with

    python -c "import typer, pydantic, yaml, rich.table"

Both have their modules compiled, as they are once pip has installed them: what compiles convrun in a checkout is the
first of the pairs that warm up, even where PYTHONDONTWRITEBYTECODE is set. Plugins in ./plugins count as convrun's.

Example: python benchmarks/validate.py --pairs 25
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

BASELINE = "import typer, pydantic, yaml, rich.table"
LIBRARIES = ("typer", "pydantic", "pyyaml", "rich")
WARM_UP_PAIRS = 3


class Seconds(NamedTuple):
    """Of a whole process: by the clock, and of the processor (user and system)."""

    clock: float
    processor: float


def main() -> None:
    """Measures, prints, and ends with 1 if a median ratio is above the limit."""
    options = parsed()
    convrun = Path(sysconfig.get_path("scripts")) / "convrun"
    if not convrun.is_file():
        sys.exit(f"{convrun} is missing; install convrun into this Python first")
    ours = [str(convrun), "validate", options.recipe]
    theirs = [sys.executable, "-c", BASELINE]
    pairs = [(measured(ours), measured(theirs)) for _ in range(WARM_UP_PAIRS + options.pairs)][WARM_UP_PAIRS:]
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    print(f"{len(pairs)} pairs in turns, whole processes; Python {sys.version.split()[0]}, {libraries}")
    ratios = [report(pairs, options.recipe, field) for field in Seconds._fields]
    if max(ratios) > options.limit:
        sys.exit(f"the median ratio {max(ratios):.2f} is above {options.limit:g}")


def parsed() -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="convnext_tiny_in1k", help="what to validate (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=25, help="measured pairs, 15 at least (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=1.2, help="largest median ratio (default: %(default)s)")
    options = parser.parse_args()
    if options.pairs < 15:
        parser.error("a median of fewer than 15 pairs says little")
    return options


def measured(command: list[str]) -> Seconds:
    """Runs a command to its end."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Seconds(seconds, usage.ru_utime + usage.ru_stime)


def report(pairs: list[tuple[Seconds, Seconds]], recipe: str, field: str) -> float:
    """Prints medians and spread by the clock or by processor time; returns the median ratio."""
    ours: list[float] = [getattr(a, field) for a, _ in pairs]
    theirs: list[float] = [getattr(b, field) for _, b in pairs]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"by the {field}")
    for label, times in ((f"convrun validate {recipe}", ours), (f"python -c {BASELINE!r}", theirs)):
        print(f"  {label:<56} median {1000 * statistics.median(times):4.0f} ms, least {1000 * min(times):4.0f} ms")
    print(f"  ratio of a pair: median {middle:.2f}, quartiles {low:.2f} to {high:.2f}")
    print(f"                   extremes {min(ratios):.2f} to {max(ratios):.2f}")
    return middle


if __name__ == "__main__":
    main()
