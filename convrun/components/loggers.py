"""The loggers a recipe can name: the screen, and files in the run folder.

What a killed run wrote of steps after its checkpoint, and the line it was killed in, is dropped when a file is opened.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convrun.contracts.logger import Row, RunInfo, Screen
from convrun.errors import RunFolderError
from convrun.registry import register


@register("logger", "console")
class Console:
    """A live progress display on a terminal, plain lines elsewhere; the lines also go to train.log."""

    def __init__(self, run: RunInfo) -> None:
        self._screen = run.screen
        self._screen.start_progress(
            run.total_steps, run.steps_per_epoch, run.start_step, report=run.report, best_top1=run.best_top1
        )

    def log(self, row: Row) -> None:
        """Shows the row."""
        self._screen.show(row)

    def flush(self) -> None:
        """Nothing to do: what is on the screen is shown."""

    def close(self) -> None:
        """Takes the display down."""
        self._screen.stop_progress()


@register("logger", "jsonl")
class JsonLines:
    """One JSON object a line in metrics.jsonl; a number that is not finite becomes null (RFC 8259, section 6)."""

    def __init__(self, run: RunInfo) -> None:
        path = run.folder / "metrics.jsonl"
        from convrun.files.appended_file import AppendedFile

        self._file = AppendedFile(path, run.screen.say)
        before = self._file.content()
        kept = _lines_until(run.start_step, run.evaluated_step, before)
        if kept != before:
            self._file.replace(kept)
            self._file.flush()

    def log(self, row: Row) -> None:
        """Appends the row."""
        line = json.dumps({key: _finite_or_none(value) for key, value in row.items()}, allow_nan=False)
        self._file.append(line.encode() + b"\n")

    def flush(self) -> None:
        """Hands what waits to the kernel."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@register("logger", "csv")
class CsvTables:
    """Two tables, train.csv and eval.csv, since their columns differ (RFC 4180); event.csv once there is an event."""

    def __init__(self, run: RunInfo) -> None:
        self._run = run
        kinds = ["train", "eval", *(["event"] if (run.folder / "event.csv").is_file() else [])]
        self._tables = {kind: self._table(kind) for kind in kinds}

    def _table(self, kind: str) -> _Table:
        run = self._run
        last_step = min(run.start_step, run.evaluated_step) if kind == "eval" else run.start_step
        return _Table(run.folder / f"{kind}.csv", last_step, run.screen)

    def log(self, row: Row) -> None:
        """Appends the row to the table of its kind."""
        values = dict(row)
        kind = values.pop("kind")
        if kind not in self._tables:
            self._tables[kind] = self._table(kind)
        self._tables[kind].append(values)

    def flush(self) -> None:
        """Hands what waits to the kernel."""
        for table in self._tables.values():
            table.file.flush()

    def close(self) -> None:
        """Closes the files."""
        for table in self._tables.values():
            table.file.close()


@register("logger", "tensorboard")
class TensorBoard:
    """Scalars for TensorBoard in tensorboard/: train/loss, train/lr, eval/ema/top1, ..."""

    def __init__(self, run: RunInfo) -> None:
        from convrun.run_folder.event_files import open_events, record

        folder = run.folder / "tensorboard"
        self._record = record
        try:
            self._file = open_events(folder, run.start_step, run.evaluated_step, run.screen.say)
        except OSError as error:
            raise RunFolderError(
                f"{folder} cannot be written: {error.strerror or error}; free space on that disk or choose another "
                "with --output, then start again"
            ) from error

    def log(self, row: Row) -> None:
        """Writes every number of the row under the row's step."""
        self._file.append(self._record(row))

    def flush(self) -> None:
        """Hands what waits to the kernel."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class _Table:
    """A CSV file whose columns are those of its rows; a row with a new key rewrites the file, which is rare."""

    def __init__(self, path: Path, last_step: float, screen: Screen) -> None:
        from convrun.files.appended_file import AppendedFile

        self.file = AppendedFile(path, screen.say)
        before = self.file.content()
        self._columns, rows = _read_table(before, last_step)
        kept = _csv(self._columns, rows, header=bool(self._columns))
        if kept != before:
            self.file.replace(kept)
            self.file.flush()

    def append(self, row: Row) -> None:
        new = [key for key in row if key not in self._columns]
        is_first = not self._columns
        if new and not is_first:
            rows = _read_table(self.file.content(), row["step"])[1]
            self.file.replace(_csv([*self._columns, *new], rows, header=True))
        self._columns += new
        self.file.append(_csv(self._columns, [row], header=is_first))


def _csv(columns: list[str], rows: Sequence[Row], header: bool) -> bytes:
    import csv

    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _read_table(content: bytes, last_step: float) -> tuple[list[str], list[dict[str, str]]]:
    import csv

    lines = content.decode(errors="replace").splitlines(keepends=True)
    reader = csv.DictReader([line for line in lines if line.endswith("\n")])
    rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) <= last_step]
    return list(reader.fieldnames or []), rows


def _lines_until(last_step: int, evaluated_step: float, content: bytes) -> bytes:
    """The whole lines of steps that are done, and of evaluations that are."""
    return b"".join(
        line
        for line in content.splitlines(keepends=True)
        if line.endswith(b"\n") and _step_of(line) <= last_step and not _is_evaluation_after(evaluated_step, line)
    )


def _step_of(line: bytes) -> float:
    """The step of a row; a line that is no row (a power cut leaves such) counts as of a step never reached."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _is_evaluation_after(step: float, line: bytes) -> bool:
    return json.loads(line).get("kind") == "eval" and _step_of(line) > step


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
