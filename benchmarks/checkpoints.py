"""Which share of its time a run waits for checkpoints at the default cadence, in the background and not.

The two ways take turns (A B A B ...), each a whole run in this process, so that whatever else the machine does meets
both. A checkpoint is written after every epoch. `digits` is the demo recipe with fewer epochs; they last seconds, so it
is the hardest case. `convnext_tiny` has a model of that size (27.9 million weights, their EMA and AdamW's moments: a
checkpoint of 426 MiB) and few, large steps on synthetic images; a real epoch is longer by far, and its share smaller.

The claim is about the median share of the runs that write in the background: at most 2 %. The wait for the last
checkpoint, once a run, is told apart: after the last step there is no training to write it beside.

Example: python benchmarks/checkpoints.py --pairs 3
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from convrun.checkpoints import BackgroundWriter
from convrun.display.screen import Screen
from convrun.recipe import Recipe, load_recipe
from convrun.training.recording.checkpointer import Checkpointer
from convrun.training.run import run
from convrun.training.state import RunState

TINY = """
name: tiny
input_size: 64
model: {name: convnext_tiny}
data: {name: synthetic, train_images: 384, val_images: 100, num_classes: 100, image_size: 64, workers: 1}
augmentations: [{name: horizontal_flip}]
optimizer: {name: adamw, lr: 1e-4}
scheduler: {name: constant}
training: {epochs: 2, batch_size: 64, micro_batch: 32}
ema: {decay: 0.999}
evaluation: {every_epochs: 1}
logging: {every_steps: 4, to: [jsonl]}
checkpoints: {every_epochs: 1}
"""


@dataclass(frozen=True)
class Timing:
    """Seconds of one run: in all, of waiting for checkpoints while it trains, and for the last one at its end."""

    total: float
    waited: float
    at_end: float

    @property
    def share(self) -> float:
        """The share of the time that was waited."""
        return self.waited / self.total


def main() -> None:
    """Measures, prints, and ends with 1 if a median share is above the limit."""
    options = parsed()
    shares = {name: measured(name, recipe, options.pairs) for name, recipe in recipes(options.only).items()}
    above = [f"{name}: {share:.2%}" for name, share in shares.items() if share > options.limit]
    if above:
        sys.exit(f"above {options.limit:.0%}: {', '.join(above)}")


def parsed() -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary.replace("%", "%%"),
        epilog=rest.replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=5, help="measured pairs, 3 at least (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=0.02, help="largest median share (default: %(default)s)")
    parser.add_argument("--only", choices=["digits", "convnext_tiny"], help="measure one of the two")
    options = parser.parse_args()
    if options.pairs < 3:
        parser.error("a median of fewer than 3 pairs says nothing")
    return options


def recipes(only: str | None) -> dict[str, Callable[[], Recipe]]:
    """What is trained."""
    found = {"digits": digits, "convnext_tiny": tiny}
    return {name: recipe for name, recipe in found.items() if only in (None, name)}


def digits() -> Recipe:
    """The demo recipe, shorter."""
    return load_recipe("digits_demo", ["training.epochs=6", "logging.to=[jsonl]"], plugins=False)


def tiny() -> Recipe:
    """A model of ConvNeXt-T's size."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tiny.yaml").write_text(TINY)
        return load_recipe(Path(folder) / "tiny.yaml", [], plugins=False)


def measured(name: str, recipe: Callable[[], Recipe], pairs: int) -> float:
    """Runs the pairs, after one to warm up, and prints; returns the median share in the background."""
    seconds_of(recipe())
    found = [(seconds_of(recipe()), inline(recipe())) for _ in range(pairs)]
    background, synchronous = zip(*found, strict=True)
    print(f"{name}: {pairs} pairs in turns, whole runs, {statistics.median(t.total for t in background):.1f} s each")
    for label, timings in (("in the background", background), ("synchronously", synchronous)):
        shares = [timing.share for timing in timings]
        waited = statistics.median(timing.waited for timing in timings)
        print(
            f"  {label:<18} waited {waited:7.3f} s, {statistics.median(shares):7.2%} of the time "
            f"({min(shares):.2%} to {max(shares):.2%}); at the end {statistics.median(t.at_end for t in timings):.3f} s"
        )
    ratios = [ours.waited / theirs.waited for ours, theirs in found]
    print(
        f"  ratio of a pair: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}", flush=True
    )
    return float(statistics.median(timing.share for timing in background))


def seconds_of(recipe: Recipe) -> Timing:
    """Trains a recipe."""
    found: list[Timing] = []
    before_end: list[float] = []
    finish = Checkpointer.finish

    def note_end(self: Checkpointer, state: RunState) -> None:
        before_end.append(self.waited_seconds)
        finish(self, state)

    def note(self: Checkpointer) -> str:
        at_end = self.waited_seconds - before_end[-1]
        found.append(Timing(time.perf_counter() - self._began, before_end[-1], at_end))
        return ""

    patches = mock.patch.multiple(Checkpointer, summary=note, finish=note_end)
    with tempfile.TemporaryDirectory() as folder, patches:
        run(recipe, Path(folder) / "run", device="cpu", screen=Screen(io.StringIO()))
    return found[0]


def inline(recipe: Recipe) -> Timing:
    """Trains a recipe and lets training wait until each checkpoint is written."""
    with synchronous():
        return seconds_of(recipe)


@contextlib.contextmanager
def synchronous() -> Iterator[None]:
    """Inside, nothing is written in the background."""
    start = BackgroundWriter.start

    def start_and_wait(self: BackgroundWriter, work: Callable[[], None]) -> None:
        start(self, work)
        self.wait()

    with mock.patch.object(BackgroundWriter, "start", start_and_wait):
        yield


if __name__ == "__main__":
    main()
