"""SHA-256 checksums of files: given in a recipe, or in a file's own name as torch.hub writes them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from convrun.errors import CheckpointError, KeyProblem

MIN_DIGITS = 8


def check_digits(sha256: str) -> None:
    """Raises KeyProblem if this is neither a SHA-256 checksum nor the first digits of one."""
    if not re.fullmatch(rf"[0-9a-fA-F]{{{MIN_DIGITS},64}}", sha256):
        message = (
            f"{sha256!r} is no SHA-256 checksum: 64 hexadecimal digits, or their first ones ({MIN_DIGITS} at least)"
        )
        raise KeyProblem("sha256", message, "`sha256sum FILE` prints it")


def digits_in(name: str) -> str | None:
    """The checksum's digits in a name such as `convnext_tiny-983f1562.pth`.

    All-decimal ones are more often a date, so they do not count.
    """
    found = re.search(rf"-([0-9a-f]{{{MIN_DIGITS},64}})\.\w+$", name)
    return None if found is None or found[1].isdecimal() else found[1]


def sha256_of(path: Path) -> str:
    """A file's checksum, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, wanted: str, shown: str, cure: str) -> None:
    """Raises CheckpointError if a file's checksum does not begin with these digits."""
    found = sha256_of(path)
    if not found.startswith(wanted.lower()):
        raise CheckpointError(f"{shown} has the SHA-256 checksum {found}, not {wanted.lower()}; {cure}")
