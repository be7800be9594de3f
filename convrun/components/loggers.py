"""The loggers a recipe can name: the screen, and files in the run folder.

When a file is opened, the rows that a killed run wrote after its last checkpoint, and a torn last line, are dropped.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from convrun.contracts.logger import Row, RunInfo, Screen
from convrun.errors import PluginError, RunFolderError
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
        """Nothing to do: rows are shown at once."""

    def close(self) -> None:
        """Removes the display."""
        self._screen.stop_progress()


@register("logger", "jsonl")
class JsonLines:
    """One JSON object per line in metrics.jsonl; a non-finite number becomes null (RFC 8259, section 6)."""

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
        """Passes what waits to the kernel."""
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
        """Passes what waits to the kernel."""
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
        from convrun.run_folder.event_files import event_record, open_events

        folder = run.folder / "tensorboard"
        self._record = event_record
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
        """Passes what waits to the kernel."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@register("logger", "wandb")
class WeightsAndBiases:
    """Every number of a row to Weights & Biases, over the optimizer step (https://docs.wandb.ai); needs convrun[wandb].

    A resumed run goes on in the same W&B run. Steps repeated after a crash are sent again, with the same values.

    project: the W&B project, created if it does not exist
    entity: the W&B user or team; null: the account's own default
    run_name: what W&B calls the run; null: the name of the run folder
    mode: online: to W&B's server; offline: to the run folder, for a later `wandb sync`; disabled: nowhere
    tags: labels to find the run by
    """

    def __init__(
        self,
        run: RunInfo,
        *,
        project: str = "convrun",
        entity: str | None = None,
        run_name: str | None = None,
        mode: Literal["online", "offline", "disabled"] = "online",
        tags: tuple[str, ...] = (),
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise PluginError(f"logger/wandb needs W&B's package ({error}): pip install 'convrun[wandb]'") from error
        try:
            self._run = wandb.init(
                project=project,
                entity=entity,
                name=run_name or run.folder.name,
                id=_wandb_id(run.folder),
                resume="allow" if mode == "online" else None,
                mode=mode,
                tags=list(tags),
                dir=run.folder,
                config=run.recipe,
                # convrun owns the terminal, and train.log has what it showed.
                settings=wandb.Settings(silent=True, console="off"),
            )
        except (wandb.Error, OSError) as error:
            raise PluginError(
                f"logger/wandb cannot start: {str(error).splitlines()[0]} (without a network, set mode: offline and "
                "upload with `wandb sync` later)"
            ) from error
        # W&B's own step only counts up, and a run that resumes from a checkpoint may repeat some steps.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        run.screen.say(f"W&B: {_wandb_place(mode, self._run, run.folder)}")

    def log(self, row: Row) -> None:
        """Sends the row as train/loss, eval/ema/top1, ..."""
        prefix = f"eval/{row['weights']}" if row["kind"] == "eval" else row["kind"]
        numbers = {f"{prefix}/{key}": v for key, v in row.items() if key != "step" and isinstance(v, int | float)}
        self._run.log({"step": row["step"], **numbers})

    def flush(self) -> None:
        """Nothing to do: W&B's own process writes and sends the rows."""

    def close(self) -> None:
        """Waits until all rows are sent; a run that failed is marked as failed."""
        self._run.finish(exit_code=1 if sys.exc_info()[0] is not None else 0)


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
    """The complete lines of steps and of evaluations that are done."""
    return b"".join(
        line
        for line in content.splitlines(keepends=True)
        if line.endswith(b"\n") and _step_of(line) <= last_step and not _is_evaluation_after(evaluated_step, line)
    )


def _step_of(line: bytes) -> float:
    """The step of a row; infinite for a line that is not a row, which a power cut may leave."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _is_evaluation_after(step: float, line: bytes) -> bool:
    return json.loads(line).get("kind") == "eval" and _step_of(line) > step


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _wandb_id(folder: Path) -> str:
    """The id of the run folder's W&B run, drawn at the first start."""
    import uuid

    file = folder / "wandb_run_id"
    if not file.is_file():
        file.write_text(uuid.uuid4().hex + "\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()


def _wandb_place(mode: str, wandb_run: Any, folder: Path) -> str:
    if mode == "online":
        return str(wandb_run.url)
    return "off" if mode == "disabled" else f"offline; upload with: wandb sync {folder / 'wandb'}/offline-run-*"
