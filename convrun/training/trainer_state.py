"""What a trainer saves, and how it goes on from that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convrun.training.ema import Ema

if TYPE_CHECKING:
    from convrun.training.trainer import Trainer


def state_of(trainer: Trainer) -> dict[str, Any]:
    """All that the next step depends on: plain tensors, not copies, and JSON-able values.

    Of a sharded model (fsdp) rank 0 gets copies, gathered on the host; all processes must call it.
    """
    trainer.state.callbacks = [callback.state_dict() for callback in trainer.callbacks]
    return {
        **weights_of(trainer),
        "optimizer": trainer.replicas.whole(trainer.optimizer.state_dict()),
        "scaler": trainer.precision.scaler.state_dict(),
        "state": trainer.state.state_dict(),
        "window": trainer.window.state_dict(),
    }


def weights_of(trainer: Trainer) -> dict[str, Any]:
    """Weights and EMA, as `state_of` has them; collective where the model is sharded."""
    whole = trainer.replicas.whole
    return {
        "model": whole(trainer.model.state_dict()),
        "ema": whole(trainer.ema.state_dict()) if trainer.ema is not None else None,
    }


def load_state(trainer: Trainer, saved: Mapping[str, Any]) -> None:
    """Brings a trainer to where `state_of` was taken."""
    shares = trainer.replicas.shares
    trainer.model.load_state_dict(shares(saved["model"], trainer.model.state_dict()))
    if trainer.ema is not None and saved["ema"] is not None:
        trainer.ema.load_state_dict(shares(saved["ema"], trainer.ema.state_dict()))
    elif trainer.ema is not None:  # one that began with this start: it begins with the weights as they are now
        trainer.ema = Ema(trainer.model, trainer.ema.decay)
    _load_optimizer(trainer, saved["optimizer"])
    if saved["scaler"]:
        trainer.precision.scaler.load_state_dict(saved["scaler"])
    trainer.state.load_state_dict(saved["state"])
    _take_sizes_as_written(trainer)
    trainer.window.load_state_dict(saved["window"])
    if saved["state"]["callbacks"] is not None:
        for callback, state in zip(trainer.callbacks, saved["state"]["callbacks"], strict=True):
            callback.load_state_dict(state)
    trainer.saved_step = trainer.state.step


def _load_optimizer(trainer: Trainer, saved: dict[str, Any]) -> None:
    """The moments as saved, but the settings as the recipe has them now: `--allow-change` may have changed some."""
    ours = {"label", "lr_scale", *trainer.plan.optimizer.values} - {"lr"}  # every step sets that one
    settings = [{key: group[key] for key in group if key in ours} for group in trainer.optimizer.param_groups]
    trainer.optimizer.load_state_dict({**saved, "state": _state_of_own_shares(trainer, saved["state"])})
    for group, values in zip(trainer.optimizer.param_groups, settings, strict=True):
        group.update(values)


def _state_of_own_shares(trainer: Trainer, saved: dict[int, Any]) -> dict[int, Any]:
    """What the optimizer keeps for each parameter; by its number, as torch saves it."""
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    likes = [dict.fromkeys(saved.get(number, ()), p) for number, p in enumerate(parameters)]
    return {number: trainer.replicas.shares(state, likes[number]) for number, state in saved.items()}


def _take_sizes_as_written(trainer: Trainer) -> None:
    """What `auto` has cut up stays so; a size that a changed recipe fixes is meant."""
    if not trainer.plan.micro_batch_is_auto:
        trainer.state.forward_splits = 1
    if not trainer.plan.evaluation_batch_is_auto:
        trainer.state.evaluation_splits = 1
