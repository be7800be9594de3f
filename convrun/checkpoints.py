"""Checkpoints: written whole or not at all, kept or deleted by rule, read without running code.

They hold plain tensors and JSON-able values, so `torch.load(weights_only=True)` reads them.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from convrun.errors import CheckpointError, RunFolderError
from convrun.run_folder import sync_folder

FORMAT = 1
# What every checkpoint of this format holds; a trainer relies on it.
PARTS = ("model", "ema", "optimizer", "scaler", "state", "window", "data")


def path_of(folder: Path, step: int) -> Path:
    """The file of the checkpoint after `step` optimizer steps."""
    return folder / f"step-{step}.pt"


def steps_in(folder: Path) -> list[int]:
    """The steps of all checkpoints in a folder, smallest first."""
    matches = (re.fullmatch(r"step-(\d+)\.pt", path.name) for path in folder.glob("step-*.pt"))
    return sorted(int(match[1]) for match in matches if match)


def save(folder: Path, step: int, content: Mapping[str, Any]) -> Path:
    """Writes `step-<n>.pt` and points `latest` at it.

    Raises:
        RunFolderError: it cannot be written; what was there before stays.
    """
    path = path_of(folder, step)
    draft = folder / f".step-{step}.{os.getpid()}.draft"
    try:
        with draft.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        point(folder, "latest", path)
        sync_folder(folder)
    except (OSError, RuntimeError) as error:
        raise RunFolderError(
            f"the checkpoint {path} cannot be written: {_reason(error)}; earlier ones are untouched: free space "
            "on that disk and start again"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return path


def _reason(error: BaseException) -> str:
    """The system's own words: torch's zip writer hides a full disk behind a RuntimeError of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return getattr(cause, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]


def point(folder: Path, name: str, target: Path) -> None:
    """Makes `name` a link to a checkpoint, replacing an older one in one move."""
    draft = folder / f".{name}.{os.getpid()}.draft"
    draft.unlink(missing_ok=True)
    draft.symlink_to(target.name)
    draft.replace(folder / name)


def keep_only(folder: Path, last: int, best: Sequence[int]) -> None:
    """Deletes all checkpoints but the newest `last` and those of the steps in `best`, whose first `best` links to."""
    steps = steps_in(folder)
    for step in steps[: max(0, len(steps) - last)]:
        if step not in best:
            path_of(folder, step).unlink(missing_ok=True)
    if best and path_of(folder, best[0]).is_file():
        point(folder, "best", path_of(folder, best[0]))


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        CheckpointError: the file is damaged, no checkpoint of convrun's, or would run code.
    """
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        # torch's own text advises to try again without the protection.
        raise CheckpointError(
            f"{path} is no checkpoint of a convrun run: it holds more than tensors and plain values, and reading that "
            "could run code; nothing was run. Delete it to go on from the one before"
        ) from error
    except Exception as error:  # a damaged file makes zipfile and torch raise nearly anything
        raise CheckpointError(
            f"the checkpoint {path} is damaged ({_first_sentence(error)}); delete it to go on from the one before"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not all(part in content for part in PARTS):
        raise CheckpointError(f"{path} is no checkpoint of a convrun run (format {FORMAT})")
    return content


def _check_sums(path: Path) -> None:
    """Raises BadZipFile if a byte has changed: torch writes check sums, but does not look at them when it reads."""
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"wrong check sum of {damaged}")


def _first_sentence(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0].split(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {text}" if len(text) < 10 else text


def check_same_tensors(path: Path, saved: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    """Raises CheckpointError if a checkpoint holds the weights of another model; names the first difference."""
    for name in [*wanted, *(name for name in saved if name not in wanted)]:
        has = tuple(saved[name].shape) if name in saved else None
        needs = tuple(wanted[name].shape) if name in wanted else None
        if has != needs:
            found = "not there" if has is None else has
            wants = "no such tensor" if needs is None else needs
            raise CheckpointError(
                f"{path} holds the weights of another model: {name} is {found}, but the recipe's model has {wants}; "
                "train in another folder (--output)"
            )
