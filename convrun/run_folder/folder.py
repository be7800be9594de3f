"""A run's folder: one run, one folder, one writer at a time. Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from convrun.errors import RunFolderError
from convrun.files.writing import explained, write_whole
from convrun.run_folder.claim import is_lock_file
from convrun.run_folder.lock import RunLock
from convrun.text.secrets import masked
from convrun.text.units import size_text

State = Literal["running", "finished", "failed", "preempted", "interrupted", "diverged"]
# The files of a run folder that come before recipe.yaml.
EARLIEST = ("checkpoints", "environment.json", "plan.json")


class RunFolder:
    """The files of one run; docs/run_folder.md lists them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: list[Path] = []
        self.saved_step: int | None = None  # of the newest checkpoint, as far as this process knows
        self._lock: RunLock | None = None
        self._status, self._has_ended = threading.Lock(), False  # the checkpoints' thread writes the status, too

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The folder of the exported weights."""
        return self.path / "weights"

    @property
    def recipe(self) -> Path:
        """The recipe as resolved when the run began."""
        return self.path / "recipe.yaml"

    @classmethod
    def named(cls, name: str, recipe_hash: str, parent: Path = Path("runs")) -> RunFolder:
        """A new place under `runs/<name>/`, by time and hash."""
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        base = parent / name / f"{now}-{recipe_hash[:6]}"
        path, number = base, 2
        while path.exists():
            path, number = base.with_name(f"{base.name}-{number}"), number + 1
        return cls(path)

    def holds_a_run(self) -> bool:
        """Whether a run has begun here; a recipe.yaml alone is the user's own, and must not be overwritten."""
        return self.recipe.is_file() and any((self.path / n).exists() for n in (".lock", "plan.json", "status.json"))

    @contextlib.contextmanager
    def opened(self, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
        """Creates the folder and holds its lock inside the block; `say` shows a line to a user who has to wait for it.

        Raises:
            RunFolderError: it cannot be created or written, holds something else, or another process writes to it.
        """
        self._refuse_odd_bytes()
        try:
            with explained(f"the run folder {self.path}", "choose another with --output"):
                self._make(self.path)
                self._refuse_foreign()
                lock = RunLock(self.path, say)
                lock.acquire()
        except BaseException:
            self._remove_made()
            raise
        self._lock = lock
        try:
            with explained(f"the run folder {self.path}", "choose another with --output"):
                self._make(self.checkpoints)
                self._remove_drafts()
            yield
        finally:
            if not self.holds_a_run():
                self._remove_empty()
            lock.release()  # self._lock stays: a thread that still writes a checkpoint must find that it may not

    def check_held(self) -> None:
        """Raises RunFolderError if another process has taken the run over, so that this one must write no more.

        It costs one listing of the folder, and is called before every lasting write: checkpoints, rows, status.json.
        """
        if self._lock is not None:
            with explained(f"the run folder {self.path}", "look at that disk, then start again"):
                try:
                    self._lock.check_held()
                except FileNotFoundError as error:
                    raise RunFolderError(
                        f"the run folder {self.path} is gone: it was deleted or moved away while the run went on, and "
                        "the run ends here; put it back to go on from its last checkpoint"
                    ) from error

    def _make(self, folder: Path) -> None:
        """Creates a folder and its parents, and remembers those that did not exist."""
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._made += reversed(missing)

    def _refuse_odd_bytes(self) -> None:
        """Refuses a path that is not UTF-8: torch writes checkpoints there, but cannot open them again."""
        try:
            str(self.path).encode()
        except UnicodeEncodeError:
            shown = str(self.path).encode(errors="backslashreplace").decode()
            raise RunFolderError(f"the path {shown} is not UTF-8; choose another with --output") from None

    def _refuse_foreign(self) -> None:
        names = sorted(path.name for path in self.path.iterdir())
        for name in names:
            _refuse_link_of_another_user(self.path / name)
        if not names or self.holds_a_run():
            return
        # What a run may have left that was killed just before it began, or one that begins at this moment.
        if ".lock" in names and all(name in EARLIEST or is_lock_file(name) or _is_draft(name) for name in names):
            return
        raise RunFolderError(
            f"{self.path} is neither empty nor a run folder (it holds {names[0]}); choose another with --output"
        )

    def _remove_drafts(self) -> None:
        """Deletes what a killed process was writing, anywhere in the folder."""
        for path in self.path.rglob(".*.draft"):
            path.unlink(missing_ok=True)

    def _remove_empty(self) -> None:
        """Removes everything of a run that never began, except folders that existed before."""
        with contextlib.suppress(OSError):
            for path in [path for path in self.path.iterdir() if is_lock_file(path.name)]:
                path.unlink(missing_ok=True)
        self._remove_made()

    def _remove_made(self) -> None:
        """Removes the folders that were created here and are empty."""
        with contextlib.suppress(OSError):
            while self._made:
                self._made.pop().rmdir()

    def write(self, name: str, text: str) -> None:
        """Writes one file, whole or not at all."""
        self.check_held()
        with explained(f"{self.path / name}", "free space on that disk or choose another with --output"):
            write_whole(self.path / name, text.encode(errors="backslashreplace"))  # names of files may be any bytes

    def write_json(self, name: str, data: Any) -> None:
        """Writes one JSON file, whole or not at all, with the names of variables in place of secrets."""
        self.write(name, json.dumps(masked(data), indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The map in a JSON file; None if the file is missing or damaged."""
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def set_status(self, state: State, step: int, total_steps: int, error: str = "") -> None:
        """Writes status.json. Once it says how the run ended, a checkpoint that finishes later does not change it."""
        with self._status:
            if state != "running" or not self._has_ended:
                self._has_ended = state != "running"
                self._write_status(state, step, total_steps, error)

    def _write_status(self, state: State, step: int, total_steps: int, error: str) -> None:
        status = {
            "state": state,
            "step": step,
            "total_steps": total_steps,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        saved = {} if self.saved_step is None else {"saved_step": self.saved_step}
        self.write_json("status.json", status | saved | ({"error": error} if error else {}))

    def check_space(self, needed: int) -> None:
        """Raises RunFolderError if the disk has fewer free bytes than the run will need."""
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise RunFolderError(
                f"the run needs about {size_text(needed)} for its checkpoints and weights, but the disk of {self.path} "
                f"has {size_text(free)} free; free some, choose another with --output, or lower checkpoints.keep"
            )


def _is_draft(name: str) -> bool:
    return name.startswith(".") and name.endswith(".draft")


def _refuse_link_of_another_user(path: Path) -> None:
    """Refuses a link of another user where convrun writes: it would redirect the writing. A user's own link is fine."""
    if path.is_symlink() and path.lstat().st_uid != os.geteuid():
        raise RunFolderError(
            f"{path} is a link that belongs to another user, and convrun would write where it leads; remove it, or "
            "choose another folder with --output"
        )
