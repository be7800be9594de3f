"""The weights a run leaves behind: safetensors files in timm's key names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from convrun import checkpoints
from convrun.run_folder import RunFolder, explained, write_whole
from convrun.training.trainer import Trainer


def export_weights(folder: RunFolder, trainer: Trainer) -> list[Path]:
    """Writes `last`, `best` and, with an EMA, `last_ema` and `best_ema`; returns the files.

    `best` comes from the checkpoint of the best evaluation; there is none where no checkpoint of it was kept.
    """
    files = {"last": trainer.model.state_dict()}
    if trainer.ema is not None:
        files["last_ema"] = trainer.model.state_dict() | trainer.ema.state_dict()
    best = trainer.state.best[0][1] if trainer.state.best else None
    path = checkpoints.path_of(folder.checkpoints, best) if best is not None else None
    if path is not None and path.is_file():
        saved = checkpoints.load(path)
        files["best"] = saved["model"]
        if saved["ema"] is not None:
            files["best_ema"] = saved["model"] | saved["ema"]
    with explained(f"weights in {folder.weights}", "free space on that disk and start the run again"):
        folder.weights.mkdir(exist_ok=True)
        written = []
        for name, weights in files.items():
            written.append(folder.weights / f"{name}.safetensors")
            write_whole(written[-1], save(_contiguous(weights), {"format": "pt"}))
        return written


def _contiguous(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
