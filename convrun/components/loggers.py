"""Loggers: where the rows of a run go. A row is one line of metrics.jsonl, of kind `train` or `eval`.

A run that goes on from a checkpoint at step n logs step n + 1 next. What its forerunner wrote of later steps, and a
line it was killed in the middle of, is dropped first: a reader never sees a step twice.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from convrun.display.screen import Screen
from convrun.errors import RunFolderError
from convrun.registry import register

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunInfo:
    """What loggers and callbacks are told of the run.

    Attributes:
        name: the recipe's name.
        folder: the run folder, which exists.
        recipe: the recipe as resolved.
        total_steps: optimizer steps of the whole run.
        steps_per_epoch: optimizer steps of one epoch.
        start_step: optimizer steps already done when this process started; 0 for a new run.
        evaluated_step: the last step whose evaluation is done. A run that was stopped in the midst of one starts with
            it, so rows of evaluations after this step are dropped as well.
        screen: where a logger may show lines to the user.
    """

    name: str
    folder: Path
    recipe: dict[str, Any]
    total_steps: int
    steps_per_epoch: int
    start_step: int
    evaluated_step: float = math.inf
    screen: Screen = field(default_factory=Screen)


class Logger(Protocol):
    """What convrun calls on in one process of the run, the first."""

    def log(self, row: Row) -> None:
        """Writes one row; it must be safe on disk, or as good as, when this returns."""

    def close(self) -> None:
        """Called once, when the run ends in whatever way."""


@register("logger", "console")
class Console:
    """A live progress display on a terminal, plain lines elsewhere; the lines also go to train.log."""

    def __init__(self, run: RunInfo) -> None:
        self._screen = run.screen
        self._screen.start_progress(run.total_steps, run.steps_per_epoch, run.start_step)

    def log(self, row: Row) -> None:
        """Shows the row."""
        self._screen.show(row)

    def close(self) -> None:
        """Takes the display down."""
        self._screen.stop_progress()


@register("logger", "jsonl")
class JsonLines:
    """One JSON object a line in metrics.jsonl; a number that is not finite becomes null (RFC 8259, section 6)."""

    def __init__(self, run: RunInfo) -> None:
        self._path = run.folder / "metrics.jsonl"
        with _explained(self._path):
            if self._path.is_file():
                _keep_lines_until(run.start_step, run.evaluated_step, self._path)
            self._file = self._path.open("a", encoding="utf-8")

    def log(self, row: Row) -> None:
        """Appends the row."""
        line = json.dumps({key: _finite_or_none(value) for key, value in row.items()}, allow_nan=False)
        with _explained(self._path):
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        with _explained(self._path):
            self._file.close()


@register("logger", "csv")
class CsvTables:
    """Two tables, train.csv and eval.csv, since their columns differ (RFC 4180)."""

    def __init__(self, run: RunInfo) -> None:
        last_steps = {"train": run.start_step, "eval": min(run.start_step, run.evaluated_step)}
        self._tables = {kind: _Table(run.folder / f"{kind}.csv", last) for kind, last in last_steps.items()}

    def log(self, row: Row) -> None:
        """Appends the row to the table of its kind."""
        values = dict(row)
        self._tables[values.pop("kind")].append(values)

    def close(self) -> None:
        """Nothing to do: each row is written whole."""


@register("logger", "tensorboard")
class TensorBoard:
    """Scalars for TensorBoard in tensorboard/: train/loss, train/lr, eval/ema/top1, ... (torch.utils.tensorboard)."""

    def __init__(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = run.folder / "tensorboard"
        with _explained(self._folder):
            # Readers skip what an earlier process of this run wrote from purge_step on.
            self._writer = SummaryWriter(self._folder, purge_step=run.start_step + 1, flush_secs=30)

    def log(self, row: Row) -> None:
        """Writes every number of the row under the row's step."""
        prefix = f"eval/{row['weights']}" if row["kind"] == "eval" else row["kind"]
        with _explained(self._folder):
            for key, value in row.items():
                if key not in ("step", "epoch") and isinstance(value, int | float) and not isinstance(value, bool):
                    self._writer.add_scalar(f"{prefix}/{key}", value, row["step"])

    def close(self) -> None:
        """Writes what is pending."""
        with _explained(self._folder):
            self._writer.close()


class _Table:
    """A CSV file whose columns are those of its rows; a row with a new key rewrites the file, which is rare."""

    def __init__(self, path: Path, last_step: float) -> None:
        self._path = path
        self._columns: list[str] = []
        with _explained(path):
            if path.is_file():
                self._columns, rows = _read_table(path, last_step)
                _replace(path, _csv(self._columns, rows, header=bool(self._columns)))
            path.open("a").close()

    def append(self, row: Row) -> None:
        new = [key for key in row if key not in self._columns]
        with _explained(self._path):
            if new and self._columns:
                rows = _read_table(self._path, row["step"])[1]
                _replace(self._path, _csv([*self._columns, *new], rows, header=True))
            is_first = not self._columns
            self._columns += new
            # Opened a row at a time: rows are seldom, and there is nothing to close.
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(_csv(self._columns, [row], header=is_first))


def _csv(columns: list[str], rows: Sequence[Row], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read_table(path: Path, last_step: float) -> tuple[list[str], list[dict[str, str]]]:
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    reader = csv.DictReader(whole)
    rows = [row for row in reader if row["step"].isdigit() and int(row["step"]) <= last_step]
    return list(reader.fieldnames or []), rows


def _keep_lines_until(last_step: int, evaluated_step: float, path: Path) -> None:
    before = path.read_bytes()
    kept = b"".join(
        line
        for line in before.splitlines(keepends=True)
        if line.endswith(b"\n") and _step_of(line) <= last_step and not _is_evaluation_after(evaluated_step, line)
    )
    if kept != before:
        _replace(path, kept.decode())


def _step_of(line: bytes) -> float:
    """The step of a row; a line that is no row (a power cut leaves such) counts as of a step never reached."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _is_evaluation_after(step: float, line: bytes) -> bool:
    return json.loads(line).get("kind") == "eval" and _step_of(line) > step


def _replace(path: Path, text: str) -> None:
    """Writes the file whole or not at all."""
    draft = path.with_name(path.name + ".draft")
    with draft.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFolderError(
            f"cannot write {path}: {reason}; free space on that disk or choose another with --output, then start again"
        ) from error
