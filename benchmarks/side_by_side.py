"""How fast a run trains on the CPU alone, and two side by side, for several spin counts of OpenMP's threads.

A thread that waits for the others spins before it sleeps. That is quickest while it has a core for itself; otherwise it
takes the core from those that it waits for. GOMP_SPINCOUNT is the number of turns before it sleeps: 300000 is libgomp's
own default, convrun's is in `convrun.process.threads`.

The figures are medians of the images/s in the runs' metrics.jsonl, without the first rows. The settings take turns, so
that whatever else the machine does meets all of them.

Example: python benchmarks/side_by_side.py --repeats 5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from convrun.process.threads import DECIDED_BY, SPIN_COUNT

WARM_UP_ROWS = 3


def main() -> None:
    """Measures and prints."""
    options = parsed()
    found: dict[tuple[int, int], list[float]] = {}
    for _ in range(options.repeats):
        for count in options.runs:
            for spins in options.spin_counts:
                found.setdefault((count, spins), []).append(images_per_second(count, spins, options))
    report(found, options)


def parsed() -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="digits_demo", help="what to train (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="of each run (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="loader workers of each run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of every setting (default: %(default)s)")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2], help="side by side (default: 1 2)")
    parser.add_argument(
        "--spin-counts", type=int, nargs="+", default=[300_000, 10_000, 1_000, 0], help="(default: 300000 10000 1000 0)"
    )
    return parser.parse_args()


def images_per_second(count: int, spins: int, options: argparse.Namespace) -> float:
    """Of one run, while as many train as `count` says."""
    environment = {name: value for name, value in os.environ.items() if name not in DECIDED_BY}
    environment |= {SPIN_COUNT: str(spins), "CUDA_VISIBLE_DEVICES": ""}
    changes = [f"training.epochs={options.epochs}", f"data.workers={options.workers}", "logging.every_steps=5"]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(number) for number in range(count)]
        command = [sys.executable, "-m", "convrun", "run", options.recipe, *changes, "--no-plugins"]
        started = [
            subprocess.Popen([*command, "--output", str(output)], env=environment, stdout=subprocess.DEVNULL)
            for output in outputs
        ]
        codes = [process.wait() for process in started]
        if any(codes):
            sys.exit(f"the runs ended with exit codes {codes}")
        return statistics.median(value for output in outputs for value in speeds_in(output / "metrics.jsonl"))


def speeds_in(file: Path) -> list[float]:
    """Images per second of a run's rows, without the first ones and the last third, when another may be over."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    speeds = [float(row["images_per_second"]) for row in rows if row["kind"] == "train"]
    return speeds[WARM_UP_ROWS : max(WARM_UP_ROWS + 1, 2 * len(speeds) // 3)]


def report(found: dict[tuple[int, int], list[float]], options: argparse.Namespace) -> None:
    """Prints a table: a row for each spin count, medians with the least and the most."""
    import torch

    print(f"{options.recipe}, {options.repeats} repeats; images/s of each run: median (least to most)")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}")
    print("| GOMP_SPINCOUNT |" + "".join(f" {count} at once |" for count in options.runs))
    for spins in options.spin_counts:
        cells = [found[count, spins] for count in options.runs]
        text = "".join(f" {statistics.median(c):.0f} ({min(c):.0f} to {max(c):.0f}) |" for c in cells)
        print(f"| {spins} |{text}")


if __name__ == "__main__":
    main()
