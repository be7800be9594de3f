"""Whole runs of the pipeline, for tests that do not care where a step ends."""

from __future__ import annotations

from collections.abc import Iterator

from convrun.data.pipeline import MicroBatch, TrainingBatches


def each(batches: TrainingBatches) -> Iterator[MicroBatch]:
    """The micro-batches of all steps, in order."""
    for step in range(batches.order.start_step, batches.order.end_step):
        yield from batches.of_step(step)
