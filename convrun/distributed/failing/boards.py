"""Where a process that fails leaves word for the others: only the first one's is kept.

Two of a kind: a folder for processes on one machine, whose parent reads it too, and a key of the store where the
processes of torchrun and srun have met. The folder also tells the parent of an end that is nobody's failure alone.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from convrun.distributed.failing.failure import Failure

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store


class Board(Protocol):
    """Holds at most one failure."""

    def claim(self, failure: Failure) -> bool:
        """Leaves word; whether it was the first, and so is the one the user is to read."""

    def read(self) -> Failure | None:
        """The first failure, if there is one."""


class FolderBoard:
    """A file in a folder."""

    def __init__(self, folder: Path) -> None:
        self._file, self._agreed_end = folder / "failure.json", folder / "agreed-end"

    def claim(self, failure: Failure) -> bool:
        """Leaves word: a link is made whole or not at all, and not over another.

        On a full disk, or after somebody has cleared up among temporary files, nothing is left.
        """
        draft = self._file.with_name(f"failure-{os.getpid()}.draft")
        try:
            draft.write_text(failure.as_json(), encoding="utf-8")
            os.link(draft, self._file)
        except FileExistsError:
            return False
        except OSError:
            return True
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()
        return True

    def read(self) -> Failure | None:
        """The first failure, if there is one."""
        try:
            return Failure.from_json(self._file.read_text(encoding="utf-8"))
        except OSError:
            return None

    def note_agreed_end(self) -> None:
        """All processes are about to end together; rank 0 says why."""
        with contextlib.suppress(OSError):  # as in `claim`: the parent then takes the exit code for a failure
            self._agreed_end.touch()

    @property
    def is_end_agreed(self) -> bool:
        """Whether `note_agreed_end` was called."""
        return self._agreed_end.exists()


class StoreBoard:
    """A key of the store.

    Args:
        store: where the processes met.
        rank: of the one that leaves word.
    """

    def __init__(self, store: Store, rank: int) -> None:
        self._store, self._rank = store, rank

    def claim(self, failure: Failure) -> bool:
        """Leaves word: the store takes the first."""
        text = f"{self._rank} {failure.as_json()}"  # two may leave the same word of a third
        return bool(self._store.compare_set("failure", "", text) == text.encode())

    def read(self) -> Failure | None:
        """The first failure, if there is one."""
        if not self._store.check(["failure"]):
            return None
        return Failure.from_json(self._store.get("failure").partition(b" ")[2])
