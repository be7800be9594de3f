"""What a run tells whoever records it: rank 0 writes all down (`recorder`), the other ranks little (`quiet`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from convrun.contracts.data import ImageSet
from convrun.contracts.logger import RunInfo
from convrun.contracts.metrics import Row
from convrun.data.skipped import SkippedImage
from convrun.distributed.group import Group
from convrun.plan import Machine, Plan
from convrun.recipe import Recipe
from convrun.run_folder import RunFolder
from convrun.training.figures import StepFigures
from convrun.training.state import RunState

Changes = Sequence[tuple[str, Any, Any]]


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What a run is.

    Attributes:
        recipe: as resolved.
        plan: for this machine.
        machine: where it runs.
        folder: the run folder.
        group: all ranks.
        images: the training and the validation split.
        parameters: of the model, how many.
    """

    recipe: Recipe
    plan: Plan
    machine: Machine
    folder: RunFolder
    group: Group
    images: tuple[ImageSet, ImageSet]
    parameters: int

    @property
    def data(self) -> dict[str, Any]:
        """What a checkpoint remembers of the data: the class map, and how many images there are."""
        train_set, val_set = self.images
        return {
            "class_names": list(train_set.class_names),
            "train_images": len(train_set),
            "val_images": len(val_set),
        }


@dataclasses.dataclass(frozen=True)
class NonFiniteStep:
    """A step with a loss, a gradient or a weight that is not finite.

    Attributes:
        what: in words.
        figures: of the step.
        before: the figures of the last steps before it.
        groups: label and lr_scale of each parameter group.
        scaler: the state of fp16's loss scaler when it was noticed; empty in other arithmetic.
        is_skipped: whether the step was skipped instead of ending the run.
    """

    what: str
    figures: StepFigures
    before: tuple[StepFigures, ...]
    groups: tuple[dict[str, Any], ...]
    scaler: dict[str, Any]
    is_skipped: bool

    @property
    def step(self) -> int:
        """The number of the step, from 1."""
        return self.figures.step


class Recorder(Protocol):
    """One rank's record of a run. Every rank calls every method at the same place of the run.

    Attributes:
        step: optimizer steps done.
        dump: where the last non-finite step is recorded, in words; empty if nowhere.
    """

    step: int
    dump: str

    def begin(self, changes: Changes, notes: Sequence[str]) -> None:
        """The run starts, or goes on with some allowed changes; `notes` are lines for the user."""

    def open_loggers(self, info: RunInfo) -> None:
        """The state is restored: loggers drop what an earlier process wrote beyond it."""

    def log(self, row: Row) -> None:
        """A row of metrics.jsonl."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def note_skipped(self, images: Iterable[SkippedImage]) -> None:
        """Images that this rank could not read; raises DataError if there are more than the recipe allows."""

    def note_non_finite(self, step: NonFiniteStep) -> None:
        """A step is not finite."""

    def advance(self, step: int) -> None:
        """An optimizer step is done."""

    def save(self, state: RunState) -> None:
        """The state is to be saved; returns when it may change again."""

    def wait_for_checkpoints(self) -> None:
        """Returns when no checkpoint is being written."""

    def is_all_saved(self) -> bool:
        """Whether the last state that was to be saved is."""

    def finish(self, state: RunState) -> None:
        """Training has ended in good order: all that was logged and saved is brought to the disk."""

    def leave_results(self, state: RunState) -> None:
        """The run is complete: its weights are written."""

    def fail(self, error: BaseException) -> None:
        """The run ends with an error; a failure to write that down must not hide it."""
