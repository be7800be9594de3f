"""A run's folder: one run, one folder, one writer at a time.

Files appear whole or not at all. The lock is the kernel's (`flock`), so a killed run leaves none behind.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TextIO

from convrun.errors import RunFolderError

State = Literal["running", "finished", "failed", "preempted", "interrupted", "diverged"]
# The files of a run folder that come before recipe.yaml.
EARLIEST = (".lock", "checkpoints", "environment.json", "plan.json")
PACKAGES = ("convrun", "torch", "torchvision", "timm", "numpy", "pillow")


class RunFolder:
    """The files of one run (DESIGN, section 5: recipe.yaml, plan.json, status.json, metrics.jsonl, ...)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: list[Path] = []

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """Where exported weights lie."""
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
        """Whether a run has begun here; a recipe.yaml alone is a user's own, not to be written over."""
        return self.recipe.is_file() and any((self.path / n).exists() for n in (".lock", "plan.json", "status.json"))

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Makes the folder, takes its lock, and gives it back.

        Raises:
            RunFolderError: it cannot be made or written, holds something else, or another process writes to it.
        """
        with explained(f"the run folder {self.path}", "choose another with --output"):
            self._make(self.path)
            self._refuse_foreign()
            lock = (self.path / ".lock").open("a+")
        _open_locks.add(lock)
        try:
            with explained(f"the run folder {self.path}", "choose another with --output"):
                self._take_lock(lock)
            try:
                with explained(f"the run folder {self.path}", "choose another with --output"):
                    self._make(self.checkpoints)
                    self._remove_drafts()
                yield
            finally:
                if not self.holds_a_run():
                    self._remove_empty()
        finally:
            _open_locks.discard(lock)
            with contextlib.suppress(OSError):  # a full disk
                lock.close()

    def _make(self, folder: Path) -> None:
        """Makes a folder and its parents, and remembers which were not there."""
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._made += reversed(missing)

    def _refuse_foreign(self) -> None:
        names = sorted(path.name for path in self.path.iterdir())
        if not names or self.holds_a_run():
            return
        # What a run that was killed just before it began may have left, or one that begins at this moment.
        if ".lock" in names and all(name in EARLIEST or _is_draft(name) for name in names):
            return
        raise RunFolderError(
            f"{self.path} is neither empty nor a run folder (it holds {names[0]}); choose another with --output"
        )

    def _remove_drafts(self) -> None:
        """Deletes what a killed process was in the midst of writing."""
        for folder in (self.path, self.checkpoints, self.weights):
            for path in folder.glob(".*.draft"):
                path.unlink(missing_ok=True)

    def _remove_empty(self) -> None:
        """Leaves nothing behind of a run that never began, but for folders that were there before."""
        with contextlib.suppress(OSError):
            (self.path / ".lock").unlink(missing_ok=True)
            while self._made:
                self._made.pop().rmdir()

    def _take_lock(self, lock: TextIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise RunFolderError(
                f"{self.path} is in use by {holder}; wait for it, stop it, or choose another folder with --output"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()

    def write(self, name: str, text: str) -> None:
        """Writes one file, whole or not at all."""
        with explained(f"{self.path / name}", "free space on that disk or choose another with --output"):
            write_whole(self.path / name, text.encode())

    def write_json(self, name: str, data: Any) -> None:
        """Writes one JSON file, whole or not at all."""
        self.write(name, json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> Any:
        """The content of a JSON file; None if there is none or it cannot be read."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def set_status(self, state: State, step: int, total_steps: int, error: str = "") -> None:
        """Writes status.json."""
        status = {
            "state": state,
            "step": step,
            "total_steps": total_steps,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        self.write_json("status.json", status | ({"error": error} if error else {}))

    def add_start(self, device: str, allowed_changes: list[tuple[str, Any, Any]], step: int) -> None:
        """Adds this start to environment.json: versions, device, commit, command line, allowed changes."""
        earlier = (self.read_json("environment.json") or {}).get("starts", [])
        start = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "from_step": step,
            "command": sys.argv,
            "folder": str(Path.cwd()),
            "host": socket.gethostname(),
            "device": device,
            "python": platform.python_version(),
            "system": platform.platform(),
            "versions": {name: _version(name) for name in PACKAGES},
            "git_commit": _git_commit(),
            "allowed_changes": [{"key": key, "before": old, "after": new} for key, old, new in allowed_changes],
        }
        self.write_json("environment.json", {"starts": [*earlier, start]})

    def check_space(self, needed: int) -> None:
        """Raises RunFolderError if the disk has fewer free bytes than the run will need."""
        from convrun.display.plan_text import size_text

        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise RunFolderError(
                f"the run needs about {size_text(needed)} for its checkpoints and weights, but the disk of {self.path} "
                f"has {size_text(free)} free; free some, choose another with --output, or lower checkpoints.keep"
            )


def _is_draft(name: str) -> bool:
    return name.startswith(".") and name.endswith(".draft")


_open_locks: set[TextIO] = set()


def _close_locks() -> None:
    """In a forked loader worker: it may outlive a killed run by seconds, and must not hold the folder meanwhile."""
    while _open_locks:
        _open_locks.pop().close()


os.register_at_fork(after_in_child=_close_locks)


def write_whole(path: Path, content: bytes) -> None:
    """A file with this content, or none of it: written beside, synced, renamed, the folder synced."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(what: str, cure: str) -> Iterator[None]:
    """An OSError inside becomes a RunFolderError that says what could not be written and what to do."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"{what} cannot be written: {error.strerror or error}; {cure}") from error


def _version(package: str) -> str | None:
    loaded = getattr(sys.modules.get(package), "__version__", None)
    if loaded is not None:  # torch's own says which CUDA it was built for
        return str(loaded)
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the working folder, with `+` if files differ from it."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changes = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")
