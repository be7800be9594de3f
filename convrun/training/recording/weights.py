"""The weights a run leaves behind: safetensors files in timm's key names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from convrun import checkpoints
from convrun.errors import CheckpointError
from convrun.training.recording.contract import RunFacts
from convrun.training.state import RunState
from convrun.weights.facts import facts_of
from convrun.weights.saving import save_weights


def export_weights(facts: RunFacts, state: RunState, say: Callable[[str], None] = lambda text: None) -> list[Path]:
    """Writes `last`, `best` and, with an EMA, `last_ema` and `best_ema`, and what they are of; returns the files.

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
    return save_weights(folder.weights, files, facts_of(facts.plan, facts.data["class_names"]))


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
