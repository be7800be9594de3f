"""The files of a folder of checkpoints: their names, how one is written, and how a damaged one is set aside."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from convrun.checkpoints.sealing import SealedFile, verify
from convrun.checkpoints.tensors import bytes_of
from convrun.errors import RunFolderError
from convrun.run_folder import is_disk_full, sync_folder, system_error
from convrun.text.units import size_text
from convrun.text.wording import first_line

FORMAT = 2
# What every checkpoint of this format holds, and training relies on.
PARTS = ("model", "ema", "optimizer", "scaler", "state", "figures", "data")


def path_of(folder: Path, step: int) -> Path:
    """The file of the checkpoint after `step` optimizer steps."""
    return folder / f"step-{step}.pt"


def steps_in(folder: Path) -> list[int]:
    """The steps of all checkpoints in a folder, smallest first."""
    return _steps(folder, r"step-(0|[1-9][0-9]*)\.pt")


def damaged_in(folder: Path) -> list[int]:
    """The steps of the checkpoints that were found damaged and set aside."""
    return _steps(folder, r"step-(0|[1-9][0-9]*)\.pt\.damaged")


def _steps(folder: Path, pattern: str) -> list[int]:
    matches = (re.fullmatch(pattern, path.name) for path in folder.glob("step-*"))
    return sorted(int(match[1]) for match in matches if match)


def save(
    folder: Path, step: int, content: Mapping[str, Any], before_it_counts: Callable[[], None] = lambda: None
) -> Path:
    """Writes `step-<n>.pt` and points `latest` at it. The file is read back before it gets its name.

    A deleted folder is created again, but not its parent. `before_it_counts` is called just before the file gets its
    name, and may raise.

    Raises:
        RunFolderError: it cannot be written; earlier checkpoints stay.
    """
    path = path_of(folder, step)
    draft = folder / f".step-{step}.{os.getpid()}.draft"
    try:
        folder.mkdir(exist_ok=True)
        draft.unlink(missing_ok=True)
        with SealedFile(draft) as file:
            torch.save({"format": FORMAT, **content}, file)
            file.seal()
        verify(draft)
        before_it_counts()
        draft.replace(path)
        point(folder, "latest", path)
        sync_folder(folder)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        reason = _reason(error) + _missing(error, folder, bytes_of(content))
        raise RunFolderError(f"the checkpoint {path} cannot be written: {reason}") from error
    finally:
        draft.unlink(missing_ok=True)
    return path


def _reason(error: BaseException) -> str:
    system = system_error(error)
    return (system and system.strerror) or first_line(error)


def _missing(error: BaseException, folder: Path, needed: int) -> str:
    """` (it needs 1.2 GiB, 0.4 GiB more than there is)` if the disk is full, else an empty text."""
    if not is_disk_full(error):
        return ""
    try:
        missing = needed - shutil.disk_usage(folder).free
    except OSError:
        missing = 0
    more = f", {size_text(missing)} more than there is" if missing > 0 else ""
    return f" (it needs {size_text(needed)}{more})"


def point(folder: Path, name: str, target: Path) -> None:
    """Makes `name` a link to a checkpoint, replacing an older link atomically."""
    draft = folder / f".{name}.{os.getpid()}.draft"
    draft.unlink(missing_ok=True)
    draft.symlink_to(target.name)
    draft.replace(folder / name)


def set_aside(path: Path) -> Path:
    """Renames a damaged checkpoint to `<name>.damaged`, so that it neither counts nor is tried again.

    Raises:
        RunFolderError: it cannot be renamed.
    """
    aside = path.with_name(path.name + ".damaged")
    try:
        path.replace(aside)
        sync_folder(path.parent)
    except OSError as error:
        raise RunFolderError(
            f"the checkpoint {path} is damaged and cannot be renamed: {error.strerror}; remove it yourself"
        ) from error
    return aside
