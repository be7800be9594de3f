"""A file of weights -> its tensors, whoever wrote it; nothing in a file ever runs.

Known are safetensors and torch files: plain state dicts, and training checkpoints of convrun, timm, the released
code (which pickled its `argparse.Namespace` along) and others that keep state dicts in entries of any name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from convrun.contracts.metrics import Weights
from convrun.errors import CheckpointError
from convrun.text.wording import first_line
from convrun.weights.facts import class_names_in

Kind = Literal["safetensors", "torch"]

# Where training checkpoints keep the weights, and their moving average; the first that is there counts.
MODEL_ENTRIES = ("model", "state_dict", "model_state_dict")
EMA_ENTRIES = ("ema", "model_ema", "state_dict_ema", "model_ema_state_dict", "ema_state_dict")
# Other entries are told apart by their names: those of an average, and those that hold tensors but no weights.
IS_EMA = re.compile(r"(^|_)(ema|swa|averaged?)(_|$)")
NOT_WEIGHTS = ("opt", "scaler", "scheduler", "lr_scheduler", "callbacks", "loops", "rng", "random")


def read_weights(path: Path, weights: Weights = "model", shown: str = "") -> dict[str, Tensor]:
    """The tensors of a file, on the CPU, under the file's own names; mapped from the disk where the format allows.

    Values in between that are no tensors (an epoch, settings) are left out. Where the weights lie in several entries of
    a checkpoint, the entries' names come before those of the tensors: `student.stem.0.weight`.

    Args:
        path: the file.
        weights: which to take from a checkpoint that holds both.
        shown: what errors call the file; its path by default.

    Raises:
        CheckpointError: it is no file of weights, is damaged, would run code, or lacks the weights asked for.
    """
    shown = shown or str(path)
    return _chosen(_content(path, shown), weights, shown)


def read_weights_and_classes(
    path: Path, weights: Literal["model", "ema"] = "model", shown: str = ""
) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """As `read_weights`, with the names of the classes in label order; None if neither the file nor a `classes.json`
    beside it names them.

    Raises:
        CheckpointError: as `read_weights`, or the `classes.json` is no list of names.
    """
    shown = shown or str(path)
    content = _content(path, shown)
    names = _class_names(content, metadata_of(path, shown))
    beside = path.parent / "classes.json"
    if names is None and beside.is_file():
        names = class_names_in(beside)
    return _chosen(content, weights, shown), names


def _chosen(content: Any, weights: Literal["model", "ema"], shown: str) -> dict[str, Tensor]:
    states = _states(content)
    model, ema = _model_of(states), _ema_of(states)
    if model is None and ema is None:
        raise CheckpointError(f"{shown} holds no weights convrun can find, but {_described(content)}")
    if weights == "model":
        if model is None:
            raise CheckpointError(f"{shown} holds only an EMA, not the model's own weights; set init.weights=ema")
        return model
    if ema is None and states.keys() == {""}:
        raise CheckpointError(
            f"{shown} holds one set of weights and no EMA beside it; take it with init.weights=model (it may well "
            "be an EMA that was saved alone)"
        )
    if ema is None:
        raise CheckpointError(f"{shown} holds no EMA, only the model's own weights; set init.weights=model")
    # convrun's averages leave out what cannot be averaged, such as counters: the model's own values stand in.
    return model | ema if model is not None and ema.keys() <= model.keys() else ema


def _class_names(content: Any, metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """As safetensors' metadata have them, a checkpoint of convrun's, or one of MMPretrain's."""
    found: Any = None
    if "class_names" in metadata:
        with contextlib.suppress(ValueError):
            found = json.loads(metadata["class_names"])
    for entries in (("data", "class_names"), ("meta", "dataset_meta", "classes"), ("meta", "CLASSES")):
        if found is None:
            found = content
            for entry in entries:
                found = found.get(entry) if isinstance(found, Mapping) else None
    is_names = isinstance(found, list | tuple) and found and all(isinstance(name, str) for name in found)
    return tuple(found) if is_names else None


def metadata_of(path: Path, shown: str = "") -> dict[str, str]:
    """The metadata of a safetensors file; nothing for one of torch's formats, which has none.

    Raises:
        CheckpointError: it is no file of weights, or is damaged.
    """
    shown = shown or str(path)
    if kind_of(path, shown) != "safetensors":
        return {}
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # its own errors share no class
        raise CheckpointError(f"{shown} is damaged or incomplete ({first_line(error)}); get it again") from error


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
        reason = first_line(error).split(". ")[0]
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


def _states(content: Any, path: str = "", depth: int = 2) -> dict[str, dict[str, Tensor]]:
    """{path of entries: the tensors that lie right there}, as `model` or `teacher.backbone`; `` is the file itself."""
    if not isinstance(content, Mapping):
        return {}
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    found = {path: tensors} if tensors else {}
    for key, value in content.items():
        if depth and isinstance(key, str) and not key.startswith(NOT_WEIGHTS):
            found |= _states(value, f"{path}.{key}" if path else key, depth - 1)
    return found


def _model_of(states: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor] | None:
    known = next((entry for entry in MODEL_ENTRIES if _is_in(entry, states)), None)
    if known is not None:
        return _joined({path: state for path, state in states.items() if _is_within(path, known)})
    return _joined({path: state for path, state in states.items() if not _is_average(path)})


def _ema_of(states: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor] | None:
    known = next((entry for entry in EMA_ENTRIES if _is_in(entry, states)), None)
    is_ema = _is_average if known is None else lambda path: _is_within(path, known)
    return _joined({path: state for path, state in states.items() if is_ema(path)})


def _is_in(entry: str, states: Mapping[str, object]) -> bool:
    return any(_is_within(path, entry) for path in states)


def _is_within(path: str, entry: str) -> bool:
    return path == entry or path.startswith(f"{entry}.")


def _is_average(path: str) -> bool:
    entry = path.partition(".")[0]
    return entry in EMA_ENTRIES or IS_EMA.search(entry) is not None


def _joined(states: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor] | None:
    """One set of tensors; None if there is none."""
    if len(states) <= 1:
        return next(iter(states.values()), None)
    return {f"{path}.{key}" if path else key: tensor for path, state in states.items() for key, tensor in state.items()}


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    return f"the entries {', '.join(map(str, list(content)[:6]))}" if content else "nothing"
