"""The weights a run leaves behind: safetensors files in timm's key names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from convrun import checkpoints
from convrun.errors import CheckpointError
from convrun.run_folder import explained, write_whole
from convrun.training.recording.contract import RunFacts
from convrun.training.state import RunState


def export_weights(facts: RunFacts, state: RunState, say: Callable[[str], None] = lambda text: None) -> list[Path]:
    """Writes `last`, `best` and, with an EMA, `last_ema` and `best_ema`; returns the files.

    `best` comes from the checkpoint of the best evaluation. Where that was not kept, is gone or damaged, there is no
    `best`, also none of an earlier export, and `say` is told why.
    """
    folder, last = facts.folder, state.weights()
    files = {"last": last["model"]}
    if last["ema"] is not None:
        files["last_ema"] = last["model"] | last["ema"]
    saved = _best(facts, state, say)
    if saved is not None:
        files["best"] = saved["model"]
        if saved["ema"] is not None:
            files["best_ema"] = saved["model"] | saved["ema"]
    with explained(f"weights in {folder.weights}", "free space on that disk and start the run again"):
        folder.weights.mkdir(exist_ok=True)
        written = []
        for name, weights in files.items():
            written.append(folder.weights / f"{name}.safetensors")
            write_whole(written[-1], save(_contiguous(weights), {"format": "pt"}))
        for path in [folder.weights / f"{name}.safetensors" for name in ("best", "best_ema") if name not in files]:
            path.unlink(missing_ok=True)
        return written


def _best(facts: RunFacts, state: RunState, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The checkpoint of the best evaluation; None if none was to be kept, or it cannot be read, which is said."""
    if not state.progress.best:
        return None
    value, step = state.progress.best[0]
    path = checkpoints.path_of(facts.folder.checkpoints, step)
    if not facts.plan.checkpoints.keep.best and not path.exists():
        return None
    try:
        return checkpoints.load(path)
    except CheckpointError as error:
        say(f"weights/best.safetensors is not written: {error}; it held the best result ({value:.2f} % at step {step})")
        return None


def _contiguous(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
