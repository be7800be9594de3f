"""The files of trained weights: safetensors that tell what they are, and the same beside them as readable JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from convrun.files.writing import explained, write_whole
from convrun.text.json_text import json_text
from convrun.weights.facts import ModelFacts

WHICH = {
    "last": "the model's weights at the end of the run",
    "last_ema": "their exponential moving average at the end of the run",
    "best": "the model's weights at the best evaluation",
    "best_ema": "their exponential moving average at the best evaluation",
}


def save_weights(folder: Path, files: Mapping[str, Mapping[str, Tensor]], facts: ModelFacts) -> list[Path]:
    """Writes `NAME.safetensors` of each name, `classes.json` and `model.json`; each whole or not at all.

    What an earlier call wrote of the names of `WHICH` and this one does not is removed.

    Args:
        folder: made if it is not there.
        files: {`last` or another name: a state dict, on any device}.
        facts: what the files are of; goes into each file's metadata.

    Returns:
        The paths of the weights.

    Raises:
        RunFolderError: the disk does not take them.
    """
    with explained(f"weights in {folder}", "free space on that disk and start the run again"):
        folder.mkdir(exist_ok=True)
        write_whole(folder / "classes.json", _json(list(facts.class_names)))
        described = {f"{name}.safetensors": WHICH.get(name, "") for name in files}
        write_whole(folder / "model.json", _json({**facts.as_dict(), "files": described}))
        paths = {name: folder / f"{name}.safetensors" for name in {**files, **WHICH}}
        for name, weights in files.items():
            write_whole(paths[name], *_safetensors(weights, facts.metadata()))
        for name, path in paths.items():
            if name not in files:
                path.unlink(missing_ok=True)
        return [paths[name] for name in files]


def _json(value: object) -> bytes:
    try:
        return f"{json_text(value)}\n".encode()
    except UnicodeEncodeError:  # a folder's name that is no UTF-8
        return f"{json.dumps(value, indent=2)}\n".encode()


def _safetensors(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, memoryview]:
    """The header and the tensors of a file whose bytes are the same each time.

    safetensors itself writes metadata in an order of chance. The header is JSON behind its length in 8 bytes, padded to
    a multiple of 8; tensors are found by their distance from its end.
    """
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps({"__metadata__": dict(metadata), **json.loads(content[8:end])}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header, memoryview(content)[end:]
