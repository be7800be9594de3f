"""What a run shows while it trains: lines, and a progress display if the output is a terminal.

Every line also goes to the run's train.log, without colours.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from convrun.errors import RunFolderError
from convrun.text.secrets import masked
from convrun.text.units import clock

if TYPE_CHECKING:
    from rich.progress import Progress

    from convrun.files.appended_file import AppendedFile


class Screen:
    """Lines to the terminal and to a log file.

    Args:
        stream: where lines go; standard output by default, or nowhere if that is closed (`>&-`).
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = cast(TextIO, _Outlived(stream or _standard_output()))
        self._log: AppendedFile | None = None
        self._progress: RunProgress | None = None

    def log_to(self, path: Path) -> None:
        """Appends every line to this file from now on; on a full disk lines wait in memory."""
        if self._log is None or self._log.path != path:
            from convrun.files.appended_file import AppendedFile  # kept out of `validate`, which needs no locks

            self._log = AppendedFile(path, self.say)
            if self._log.ends_torn():
                self._log.append(b"\n")

    def say(self, text: str) -> None:
        """One line for the user."""
        text = masked(text)
        if self._progress is not None and self._progress.is_live:
            self._progress.print(text)
        else:
            print(text, file=self._stream, flush=True)
        self.record(text)

    def record(self, text: str) -> None:
        """A line for the log file alone."""
        if self._log is not None:
            self._log.append((masked(text) + "\n").encode(errors="backslashreplace"))

    def flush_log(self) -> None:
        """Writes the lines that wait in memory; raises RunFolderError if the disk is still full."""
        if self._log is not None:
            self._log.flush()

    def start_progress(
        self,
        total_steps: int,
        steps_per_epoch: int,
        start_step: int,
        *,
        report: str = "model",
        best_top1: float | None = None,
    ) -> None:
        """Shows the run's progress from now on; `best_top1` is that of the weights to report, at earlier starts."""
        self._progress = RunProgress(total_steps, steps_per_epoch, start_step, self._stream, report, best_top1)

    def advance(self, step: int) -> None:
        """An optimizer step is done."""
        if self._progress is not None:
            self._progress.advance(step)

    def show(self, row: Mapping[str, Any]) -> None:
        """A row of metrics: a line, or new numbers in the progress display."""
        if self._progress is None or row["kind"] == "event":
            return  # the run shows events itself, whichever loggers it has
        text = self._progress.take(row)
        if row["kind"] == "train" and self._progress.is_live:
            self.record(text)
        else:
            self.say(text)

    def stop_progress(self) -> None:
        """Removes the progress display."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def close(self) -> None:
        """Removes the display and closes the log."""
        self.stop_progress()
        if self._log is not None:
            with contextlib.suppress(RunFolderError):  # a full disk: a caller who must know has called `flush_log`
                self._log.close()
            self._log = None


def _standard_output() -> TextIO:
    return sys.stdout or Path(os.devnull).open("w")


class _Outlived:
    """A stream that may break without ending the run: a closed pipe or terminal, a full disk behind a redirection."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            self._point_nowhere()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._point_nowhere()

    def _point_nowhere(self) -> None:
        """Redirects to /dev/null: text still in Python's buffer would fail at exit, and change the exit code."""
        with contextlib.suppress(OSError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class RunProgress:
    """Numbers of a run under way, as a live display (on a terminal) and as text."""

    def __init__(
        self,
        total_steps: int,
        steps_per_epoch: int,
        start_step: int,
        stream: TextIO,
        report: str,
        best_top1: float | None,
    ) -> None:
        self.total_steps, self.steps_per_epoch = total_steps, steps_per_epoch
        self.step = start_step
        self.row: dict[str, Any] = {}
        self.report, self.best_top1 = report, best_top1
        self._since, self._steps_since = time.perf_counter(), 0
        self._live: Progress | None = _live_display(stream) if stream.isatty() else None
        if self._live is not None:
            cells = self.cells()
            self._task = self._live.add_task(
                "", total=total_steps, completed=start_step, position=cells["position"], text=cells["text"]
            )
            self._live.start()

    @property
    def is_live(self) -> bool:
        """Whether a display is on the terminal."""
        return self._live is not None

    def print(self, text: str) -> None:
        """A line above the display."""
        assert self._live is not None
        self._live.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def advance(self, step: int) -> None:
        """An optimizer step is done."""
        self.step = step
        self._steps_since += 1
        if self._live is not None:
            cells = self.cells()
            self._live.update(self._task, completed=step, position=cells["position"], text=cells["text"])

    def take(self, row: Mapping[str, Any]) -> str:
        """Notes a row; returns it as a line."""
        if row["kind"] == "eval":
            if row["weights"] == self.report:
                self.best_top1 = max(row["top1"], self.best_top1 or 0.0)
            # Steps are timed without the evaluations between them.
            self._since, self._steps_since = time.perf_counter(), 0
            return (
                f"{self.position()}  evaluated {row['weights']}: top-1 {row['top1']:.2f} %, top-5 {row['top5']:.2f} %, "
                f"loss {row['loss']:.4f}, {row['images']:,} images"
            )
        self.row = dict(row)
        return f"{self.position()}  {self.numbers()}"

    def position(self) -> str:
        """`epoch 3/30  step 1200/9360`."""
        epoch = min(max(self.step - 1, 0), self.total_steps - 1) // self.steps_per_epoch + 1
        epochs = -(-self.total_steps // self.steps_per_epoch)
        return f"epoch {epoch}/{epochs}  step {self.step}/{self.total_steps}"

    def numbers(self) -> str:
        """Loss, learning rate, speed, waiting, time left and the best result so far."""
        return "  ".join([*self._losses(), *self._times(), *self._results()])

    def cells(self) -> dict[str, str]:
        """The same for the live display, in two lines that fit a terminal of 80 columns."""
        return {
            "position": "\n".join([self.position(), *self._results()]),
            "text": "  ".join(self._losses()) + "\n" + "  ".join(self._times()),
        }

    def _losses(self) -> list[str]:
        if not self.row:
            return []
        speed = f"{self.row['images_per_second']:,.0f} images/s"
        return [f"loss {self.row['loss']:.4f}", f"lr {self.row['lr']:.2e}", speed]

    def _times(self) -> list[str]:
        parts = [f"data {self.row['data_wait']:.0%}"] if self.row else []
        if self._steps_since > 1:
            seconds = (time.perf_counter() - self._since) / self._steps_since
            of_epoch = min(-self.step % self.steps_per_epoch, self.total_steps - self.step)
            parts.append(f"left {clock(of_epoch * seconds)} / {clock((self.total_steps - self.step) * seconds)}")
        return parts

    def _results(self) -> list[str]:
        if self.best_top1 is None:
            return []
        return [f"best {self.best_top1:.2f} %{' (EMA)' if self.report == 'ema' else ''}"]

    def close(self) -> None:
        """Removes the display."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _live_display(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=stream)
    cells = [TextColumn(f"{{task.fields[{name}]}}") for name in ("position", "text")]
    columns = (cells[0], BarColumn(8), cells[1])
    return Progress(*columns, console=console, transient=True, refresh_per_second=4)
