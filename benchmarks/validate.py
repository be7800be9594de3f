"""How long `convrun validate RECIPE` takes beside importing the libraries it stands on.

The two commands take turns (A B A B ...), each a whole process, so that whatever else the machine does meets both.
The claim is about the median of the pairs' ratios: at most 1.5 with

    python -c "import typer, pydantic, yaml, rich.table"

Example: python benchmarks/validate.py --pairs 25
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

BASELINE = "import typer, pydantic, yaml, rich.table"
WARM_UP_PAIRS = 3


def main() -> None:
    """Measures, prints, and ends with 1 if the median ratio is above the limit."""
    options = parsed()
    convrun = Path(sysconfig.get_path("scripts")) / "convrun"
    if not convrun.is_file():
        sys.exit(f"{convrun} is missing; install convrun into this Python first")
    ours = [str(convrun), "validate", options.recipe]
    theirs = [sys.executable, "-c", BASELINE]
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(WARM_UP_PAIRS + options.pairs)][WARM_UP_PAIRS:]
    ratio = report(pairs, options.recipe)
    if ratio > options.limit:
        sys.exit(f"the median ratio {ratio:.2f} is above {options.limit:g}")


def parsed() -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="convnext_tiny_in1k", help="what to validate (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=25, help="measured pairs, 15 at least (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=1.5, help="largest median ratio (default: %(default)s)")
    options = parser.parse_args()
    if options.pairs < 15:
        parser.error("a median of fewer than 15 pairs says little")
    return options


def seconds(command: list[str]) -> float:
    """Wall time of a whole process."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def report(pairs: list[tuple[float, float]], recipe: str) -> float:
    """Prints medians and spread; returns the median ratio."""
    ours, theirs = zip(*pairs, strict=True)
    ratios = [a / b for a, b in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{len(pairs)} pairs in turns, whole processes, Python {sys.version.split()[0]}")
    for label, times in ((f"convrun validate {recipe}", ours), (f"python -c {BASELINE!r}", theirs)):
        print(f"{label:<56} median {1000 * statistics.median(times):4.0f} ms, least {1000 * min(times):4.0f} ms")
    print(f"ratio of a pair: median {middle:.2f}, quartiles {low:.2f} to {high:.2f}")
    print(f"                 extremes {min(ratios):.2f} to {max(ratios):.2f}")
    return middle


if __name__ == "__main__":
    main()
