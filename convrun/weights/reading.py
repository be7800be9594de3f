"""A file of weights -> its tensors, whoever wrote it; nothing in a file ever runs.

Known are safetensors and torch files: plain state dicts, and training checkpoints of convrun, timm, the released
code (which pickled its `argparse.Namespace` along) and others that keep state dicts under the names below.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from convrun.errors import CheckpointError

Kind = Literal["safetensors", "torch"]

# Where training checkpoints keep the weights, and their moving average; the first that is there counts.
MODEL_ENTRIES = ("model", "state_dict", "model_state_dict")
EMA_ENTRIES = ("ema", "model_ema", "state_dict_ema", "model_ema_state_dict", "ema_state_dict")
# What wrappers put before every name: DistributedDataParallel, torch.compile, and classes that hold the model.
PREFIXES = ("module.", "_orig_mod.", "model.")
# Entries of wrappers that are no weights: torch.optim.swa_utils.AveragedModel counts its updates.
NOT_WEIGHTS = ("n_averaged",)


def read_weights(path: Path, weights: Literal["model", "ema"] = "model", shown: str = "") -> dict[str, Tensor]:
    """The tensors of a file, on the CPU, without wrappers' prefixes; mapped from the disk where the format allows.

    Args:
        path: the file.
        weights: which to take from a checkpoint that holds both.
        shown: what errors call the file; its path by default.

    Raises:
        CheckpointError: it is no file of weights, is damaged, would run code, or lacks the weights asked for.
    """
    shown = shown or str(path)
    content = _content(path, shown)
    model, ema = _first_state(content, MODEL_ENTRIES), _first_state(content, EMA_ENTRIES)
    if model is None and ema is None:
        if not _is_state(content):
            raise CheckpointError(f"{shown} holds no weights convrun can find, but {_described(content)}")
        if weights == "ema":
            raise CheckpointError(
                f"{shown} holds one set of weights and no EMA beside it; take it with init.weights=model (it may well "
                "be an EMA that was saved alone)"
            )
        return _bare(content)
    if weights == "ema":
        if ema is None:
            raise CheckpointError(f"{shown} holds no EMA, only the model's own weights; set init.weights=model")
        # convrun's averages leave out what cannot be averaged, such as counters: the model's own values stand in.
        own = _bare(model) if model is not None else {}
        return own | _bare(ema) if _bare(ema).keys() <= own.keys() else _bare(ema)
    if model is None:
        raise CheckpointError(f"{shown} holds only an EMA, not the model's own weights; set init.weights=ema")
    return _bare(model)


def kind_of(path: Path, shown: str) -> Kind:
    """The format of a file, by its first bytes.

    Raises:
        CheckpointError: it is neither safetensors nor torch's; what it seems to be instead.
    """
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError as error:
        raise CheckpointError(f"{shown} cannot be read: {error.strerror or error}") from error
    # First, for the length of safetensors' header, in 8 bytes, may begin as a pickle or an archive does. Neither of
    # those can have zeros there and a brace after them.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return "safetensors"
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    raise CheckpointError(f"{shown} is no file of weights: {_guess(start)}")


def _guess(start: bytes) -> str:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "it is empty; get it again"
    if text.startswith(b"<"):
        return "it is a web page, perhaps of a log-in or an error; look at it, and get the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "it is git-lfs's pointer to one; `git lfs pull` gets the file itself"
    if text.startswith(b"{"):
        return "it is JSON; the weights are in another file beside it"
    return "neither safetensors nor torch's format (.pth, .pt, .bin)"


def _content(path: Path, shown: str) -> Any:
    try:
        if kind_of(path, shown) == "safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return _torch_content(path)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own text advises to try again without the protection.
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"an object of {named[1]}" if named else "more than tensors and plain values"
        raise CheckpointError(
            f"{shown} holds {what}, and reading that could run code; nothing was run. If you trust the file, open it "
            "where you do and save its state dict alone, best as safetensors"
        ) from error
    except Exception as error:  # a damaged file makes zipfile, pickle and torch raise nearly anything
        reason = (str(error).splitlines() or [""])[0].split(". ")[0] or type(error).__name__
        raise CheckpointError(f"{shown} is damaged or incomplete ({reason}); get it again") from error


def _torch_content(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        # torch writes check sums, but does not look at them when it reads.
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong check sum of {damaged}")
    # A Namespace is a plain bag of values: filling one calls nothing.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)


def _first_state(content: Any, entries: tuple[str, ...]) -> Mapping[str, Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    return next((content[entry] for entry in entries if entry in content and _is_state(content[entry])), None)


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without a prefix that all names have, again and again: `module._orig_mod.` is two."""
    bare = {key: tensor for key, tensor in state.items() if key not in NOT_WEIGHTS}
    while bare and (prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in bare)), None)):
        bare = {key.removeprefix(prefix): tensor for key, tensor in bare.items()}
    return bare


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    return f"the entries {', '.join(map(str, list(content)[:6]))}" if content else "nothing"
