"""Launchers: they start the processes of a run somewhere, and answer questions about them later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from convrun.contracts.kind import Kind
from convrun.errors import ConvrunError


class LaunchError(ConvrunError):
    """A launcher cannot start, query or cancel a run."""


@dataclass(frozen=True)
class Job:
    """One run to start. Its processes do what `convrun run FOLDER` does (`convrun.task`).

    Attributes:
        name: what the scheduler calls it; no other job has this name.
        folder: the run folder, absolute; recipe.yaml is there already.
        working_folder: where its processes start, absolute; relative paths in the recipe count from there.
        nonce: the value in the folder's launch.json; a process that reads another value sees another folder.
    """

    name: str
    folder: Path
    working_folder: Path
    nonce: str


@dataclass(frozen=True)
class Submission:
    """Jobs that are submitted together: one, or those of a sweep.

    Attributes:
        name: of all of them together.
        home: the run folder, or the folder that holds those of the sweep; absolute.
    """

    name: str
    home: Path
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class JobState:
    """What a launcher knows of a job now.

    Attributes:
        state: `unknown` if the launcher cannot tell; convrun then relies on the run folder.
        word: the scheduler's own word (PENDING, NODE_FAIL, ...).
        reason: why it waits, or why it ended; if unknown, why the scheduler could not be asked (empty: the scheduler
            no longer knows the job); if running, what it does instead of training.
        nodes: where it runs.
        start: when it is expected to start, as the scheduler says it.
    """

    state: Literal["waiting", "running", "ended", "unknown"]
    word: str = ""
    reason: str = ""
    nodes: str = ""
    start: str = ""


class Launcher(ABC):
    """What a launcher component returns.

    Attributes:
        processes: training processes over all nodes, one a device; None: known only where the run starts.
    """

    processes: int | None = None

    def notes(self, submission: Submission) -> list[str]:
        """What the user should know before the jobs are submitted; raises LaunchError if they must not be."""
        return []

    @abstractmethod
    def script(self, submission: Submission) -> str:
        """The text that `--dry-run` shows: exactly what `submit` would submit."""

    @abstractmethod
    def submit(self, submission: Submission) -> list[dict[str, Any]]:
        """Submits the jobs; returns for each what `query` and `cancel` need, as JSON-serializable data."""

    @abstractmethod
    def query(self, infos: Sequence[Mapping[str, Any]]) -> list[JobState]:
        """The state of each job: `unknown`, not an error, if the scheduler does not answer."""

    @abstractmethod
    def cancel(self, info: Mapping[str, Any]) -> None:
        """Ends a job after giving it time to save; no error if the job has ended already."""

    def watch_text(self, infos: Sequence[Mapping[str, Any]]) -> str:
        """One line that names what was submitted, as the scheduler's own commands would."""
        return ""


LAUNCHER = Kind(
    name="launcher",
    module="convrun.components.launchers",
    section="launcher",
    returns=Launcher,
    rules=("every process of a job does what `python -m convrun.task FOLDER NONCE` does",),
    optional_meta={"check": "function(**keys) that raises KeyProblem"},
)
