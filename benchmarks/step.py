"""What convrun's loop costs beside the model: its time a step against a bare loop and against timm's training step.

Blocks of steps in turn (A B C A B C ..., another one first each round), in one process, so that whatever else the
machine does meets all; the medians of the rounds' ratios count. `benchmarks/contenders.py` says what each of them does.
A speed of 0.99 is 1 % slower than the bare loop of the same way, eager or compiled. The claim is about convrun's median
speed against the bare loop: at least 0.98.

Example: python -m benchmarks.step --rounds 15 --json step.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import timm
import torch

from benchmarks.contenders import NAMES, Contender, Task

WAYS = ("eager", "compiled")


def main() -> None:
    """Measures, prints, and ends with 1 if convrun is too slow."""
    options = parsed()
    model = options.model if options.model.startswith("{") else f"{{name: {options.model}, drop_path_rate: 0.1}}"
    task = Task(model, options.images, options.size, options.precision, options.device)
    print(f"{machine(options.device)}\n{task.model}, {task.images} images of {task.size} pixels, {task.precision}")
    found: list[dict[str, Any]] = []
    for way in options.ways:
        contenders = [Contender(name, task, is_compiled=way == "compiled") for name in options.names]
        for contender in contenders:  # compiles where there is something to compile
            started = time.perf_counter()
            contender.seconds(options.warm_up)
            print(f"{contender.label:<20} warm after {time.perf_counter() - started:.1f} s", flush=True)
        found += compared(in_turn(contenders, options.rounds, options.steps), task.images)
    print("\n".join(table(found)))
    if options.json:
        data = {"machine": machine(options.device), "task": vars(task), "rows": found}
        options.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    slow = [row for row in found if row["name"].startswith("convrun") and row.get("speed", 1.0) < options.limit]
    if slow:
        sys.exit(f"{slow[0]['name']} has a median speed of {slow[0]['speed']:.3f}, below {options.limit:g}")


def parsed() -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="convnext_atto", help="a name, or a recipe's model section in one line")
    parser.add_argument("--images", type=int, default=16, help="of one step (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="pixels (default: %(default)s)")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--names", nargs="+", choices=NAMES, default=NAMES, help="the first is what others are held to")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--rounds", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="of a block (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="steps that do not count (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=0.98, help="least speed of convrun (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures as JSON")
    return parser.parse_args()


def in_turn(
    contenders: list[Contender], rounds: int, steps: int, until: float = float("inf")
) -> dict[str, list[float]]:
    """Seconds a step of each contender in each round; no new round begins after `until` (time.monotonic)."""
    seconds: dict[str, list[float]] = {contender.label: [] for contender in contenders}
    for number in range(rounds):
        if number and time.monotonic() > until:
            break
        first = number % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            seconds[contender.label].append(contender.seconds(steps) / steps)
    return seconds


def compared(seconds: dict[str, list[float]], images: int) -> list[dict[str, Any]]:
    """A row a contender: seconds a step and images a second, and its speed against the first contender's."""
    reference = next(iter(seconds.values()))
    rows = []
    for name, own in seconds.items():
        speeds = sorted(theirs / mine for theirs, mine in zip(reference, own, strict=True))
        rows.append(
            {
                "name": name,
                "seconds": statistics.median(own),
                "least_seconds": min(own),
                "most_seconds": max(own),
                "images_per_second": images / statistics.median(own),
                "speed": statistics.median(speeds),
                "least_speed": speeds[0],
                "most_speed": speeds[-1],
                "rounds": len(own),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as text."""
    lines = [f"{'':<20}{'median':>12}{'spread':>22}{'images/s':>11}{'speed':>9}  (spread)"]
    for row in rows:
        spread = f"{1e3 * row['least_seconds']:.1f} to {1e3 * row['most_seconds']:.1f}"
        speeds = f"({row['least_speed']:.2f} to {row['most_speed']:.2f})"
        lines.append(
            f"{row['name']:<20}{1e3 * row['seconds']:>9.1f} ms{spread:>22}{row['images_per_second']:>11.1f}"
            f"{row['speed']:>9.3f}  {speeds}"
        )
    return lines


def machine(device: str) -> str:
    """Device and versions in one line."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        name = f"{_processor()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return f"{name}; Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"


def _processor() -> str:
    """What Linux calls the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


if __name__ == "__main__":
    main()
