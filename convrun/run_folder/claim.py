"""The claims of a run folder: files with ever higher numbers that say who holds the folder, or held it last."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from pathlib import Path

from convrun.run_folder.process_identity import ProcessIdentity

BEAT_SECONDS = 10.0
LONGEST_CLAIM = 4096
RELEASED = b"released    "  # replaces the counter, which has as many digits
_CLAIM = re.compile(r"\.lock\.(\d{1,18})")


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a claim's file says, and its bytes: while they change, its holder is alive.

    Attributes:
        holder: None if it cannot be read, because the file is being written or was left half-written.
    """

    number: int
    content: bytes
    holder: ProcessIdentity | None = None
    token: str = ""
    beat_seconds: float = BEAT_SECONDS

    @property
    def is_released(self) -> bool:
        """Whether its holder released it."""
        return self.content.endswith(RELEASED)

    @property
    def text(self) -> str:
        """Its holder, for messages."""
        return self.holder.text if self.holder else "another process"


def is_lock_file(name: str) -> bool:
    """Whether a file of this name in a run folder belongs to the lock."""
    return name == ".lock" or _CLAIM.fullmatch(name) is not None


def claims_in(folder: Path) -> list[int]:
    """The numbers of all claims in a folder, smallest first."""
    with os.scandir(folder) as entries:
        return sorted(int(match[1]) for entry in entries if (match := _CLAIM.fullmatch(entry.name)))


def claim_file(folder: Path, number: int) -> Path:
    """The file of a claim."""
    return folder / f".lock.{number}"


def read_claim(folder: Path, number: int) -> Claim:
    """A claim as it is now. It is opened each time, since a network file system looks for changes when a file opens."""
    try:
        with claim_file(folder, number).open("rb") as file:
            content = file.read(LONGEST_CLAIM)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return Claim(number, b"")
    try:
        said = json.loads(content.split(b"\n")[0])
        holder, beat_seconds = ProcessIdentity(**said["holder"]), float(said["beat_seconds"])
        if type(holder.pid) is not int or holder.pid <= 0 or not 0 < beat_seconds < 60:
            return Claim(number, content)
        return Claim(number, content, holder, str(said["token"]), beat_seconds)
    except (ValueError, KeyError, TypeError, RecursionError):
        return Claim(number, content)
