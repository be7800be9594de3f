"""Reads a checkpoint: every byte is checked, no code runs, and sizes that the file claims are not trusted."""

from __future__ import annotations

import errno
import os
import pickle
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from convrun.checkpoints.files import FORMAT, PARTS
from convrun.checkpoints.sealing import verify
from convrun.checkpoints.tensors import bytes_of, copied, tensors_of
from convrun.errors import CheckpointError, DamagedCheckpoint
from convrun.files.regular_file import KINDS


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        DamagedCheckpoint: bytes are missing or changed, or it holds something that could run code.
        CheckpointError: it cannot be read, or is not a checkpoint of this version of convrun.
    """
    try:
        _check_is_file(path)
        content = _read(path)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read: {error.strerror or error}; it may be intact: fix that, then start "
            "again"
        ) from error
    _check_parts(path, content)
    return copied(content)


def _check_is_file(path: Path) -> None:
    """Raises CheckpointError for what is not a file; a pipe would block whoever opens it."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise CheckpointError(f"{path} is {kind}, not a checkpoint; remove it to go on from the one before")
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _read(path: Path) -> Any:
    try:
        verify(path)
        # Mapped, because torch trusts the sizes in a pickle: in a mapping they cannot exceed the file.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        # Not torch's own message, which suggests loading the file with weights_only=False.
        raise DamagedCheckpoint(
            f"{path} is not a checkpoint of a convrun run: it holds more than tensors and plain values, and reading "
            "that could run code; nothing was run"
        ) from error
    except MemoryError as error:
        raise CheckpointError(f"there is not enough memory to read the checkpoint {path}") from error
    except Exception as error:  # a damaged file makes zipfile and torch raise almost anything
        # EINVAL: a damaged archive made its reader seek to before the beginning of the file.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DamagedCheckpoint(f"the checkpoint {path} is damaged ({_first_sentence(error)})") from error


def _first_sentence(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0].split(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {text}" if len(text) < 10 else text


def _check_parts(path: Path, content: Any) -> None:
    """Raises CheckpointError if another program or another version of convrun has written it."""
    other = CheckpointError(f"{path} is not a checkpoint of a convrun run; remove it to go on from the one before")
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise other
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {content['format']}, and this convrun goes on from format {FORMAT}; finish the run "
            f"with the version that began it, or begin another from its weights: {begin_from(path)}"
        )
    parts = [content.get(name) for name in PARTS]
    maps = [part for name, part in zip(PARTS, parts, strict=True) if name != "ema" or part is not None]
    if not all(isinstance(part, dict) for part in maps) or not _is_weights(content["model"]):
        raise other
    if content["ema"] is not None and not _is_weights(content["ema"]):
        raise other
    if not all(_is_plain(tensor) for tensor in tensors_of(content)):
        raise other
    # With strides of 0, a tensor may present one number of the file as a million.
    if bytes_of(content) > path.stat().st_size:
        raise CheckpointError(f"{path} is not a checkpoint of a convrun run: its tensors are larger than the file")


def begin_from(path: Path, *overrides: str) -> str:
    """The command that begins another run from a checkpoint's weights; the user names the folder."""
    recipe = path.parent.parent / "recipe.yaml"  # where the checkpoint lies in a run folder
    words = ["convrun", "run", str(recipe) if recipe.is_file() else "RECIPE", *overrides, f"init.from={path}"]
    return shlex.join([*words, "--output", "ANOTHER_FOLDER"])


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of the kind that convrun saves: dense and on the CPU, not sparse, quantized or `meta`."""
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def _is_weights(part: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in part.items())


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
