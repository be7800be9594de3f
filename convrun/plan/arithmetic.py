"""The numbers a plan derives, each a function with its formula. Plain arithmetic, no torch."""

from __future__ import annotations

import math

from convrun.errors import KeyProblem
from convrun.text.wording import listed

MOST_AUTO_MICRO_BATCH = 128
MOST_AUTO_WORKERS = 8


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Optimizer steps of one pass: floor(images / batch_size); the rest of the images is left out."""
    return images // batch_size


def total_steps(epochs: int | None, steps: int | None, per_epoch: int) -> int:
    """Optimizer steps of the run: `steps` as given, else epochs × steps per epoch."""
    return steps if steps is not None else (epochs or 0) * per_epoch


def accumulation(batch_size: int, micro_batch: int, processes: int) -> int:
    """Micro-batches of one process for one step: batch_size / (micro_batch × processes)."""
    return batch_size // (micro_batch * processes)


def interval(epochs: int | None, steps: int | None, per_epoch: int) -> int:
    """Steps between two events: `steps` as given, else epochs × steps per epoch."""
    return steps if steps is not None else (epochs or 1) * per_epoch


def peak_lr(lr: float, batch_size: int, lr_for_batch: int | None) -> float:
    """The learning rate after warm-up: lr, or lr × batch_size / lr_for_batch (Goyal et al., arXiv:1706.02677)."""
    return lr if lr_for_batch is None else lr * batch_size / lr_for_batch


def workers(written: int | str, cores: int, processes: int) -> int:
    """Loader workers of one process; auto: its share of the node's cores, 1 to 8."""
    if isinstance(written, int):
        return written
    return max(1, min(MOST_AUTO_WORKERS, cores // processes))


def divisors(n: int) -> list[int]:
    """All divisors of n, smallest first."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def micro_batch_of(batch_size: int, written: int | str, processes: int) -> int:
    """The micro-batch; auto: the largest divisor of a process's share of the batch, up to 128.

    Raises:
        KeyProblem: processes × micro-batch does not divide the batch; names values that would.
    """
    if batch_size % processes:
        near = [n for n in (batch_size // processes * processes, -(-batch_size // processes) * processes) if n]
        counts = [d for d in divisors(batch_size) if d <= 4 * processes]
        raise KeyProblem(
            "batch_size",
            f"{batch_size} images do not divide over {processes} processes",
            f"batch_size can be {' or '.join(map(str, near))}, or processes {listed([str(c) for c in counts], 12)}",
        )
    share = batch_size // processes
    workable = divisors(share)
    if written == "auto":
        return max(d for d in workable if d <= MOST_AUTO_MICRO_BATCH)
    assert isinstance(written, int)
    if share % written:
        each = f"{processes} processes, {share} images each" if processes > 1 else "one process"
        raise KeyProblem(
            "micro_batch",
            f"{written} does not divide a batch of {batch_size} on {each}",
            f"micro_batch can be {listed([str(d) for d in workable], 24)}",
        )
    return written
