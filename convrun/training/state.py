"""All that a checkpoint holds: weights, their EMA, the optimizer, and how far the run is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convrun.contracts.callback import Callback
from convrun.distributed.strategy import Strategy
from convrun.errors import CheckpointError
from convrun.plan import Plan
from convrun.training.ema import Ema
from convrun.training.figures import Figures
from convrun.training.precision import Precision


@dataclasses.dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: optimizer steps done.
        evaluated_step: the last step after which the weights were evaluated.
        best: (reported top-1 in percent, step) of the best evaluations, best first, as many as are kept (at least 1).
        overflow_steps: steps that fp16's loss scaling skipped because a scaled gradient overflowed.
        nonfinite_steps: steps skipped because their loss or gradient was not finite (`training.nonfinite: skip`).
        forward_parts: parts in which a micro-batch goes through the model, because the whole did not fit.
        evaluation_parts: the same for a batch of the evaluation.
        callbacks: what each callback must remember, in their order.
        stopped_because: why a callback ended the run, if one did.
    """

    step: int = 0
    evaluated_step: int = 0
    best: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    overflow_steps: int = 0
    nonfinite_steps: int = 0
    forward_parts: int = 1
    evaluation_parts: int = 1
    callbacks: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    stopped_because: str = ""

    def state_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return dataclasses.asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from saved values."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, state[field.name])
        self.best = [(value, step) for value, step in self.best]

    @classmethod
    def missing_in(cls, state: Mapping[str, Any]) -> list[str]:
        """The names of the values that a saved state lacks."""
        return [field.name for field in dataclasses.fields(cls) if field.name not in state]

    def note_result(self, value: float, keep: int) -> bool:
        """Enters an evaluation among the best; whether it is the new best. A tie goes to the earlier step."""
        self.best = sorted([*self.best, (value, self.step)], key=lambda item: (-item[0], item[1]))[: max(1, keep)]
        return self.best[0] == (value, self.step)


class RunState:
    """What the next step depends on. Its parts are shared with the step, the evaluation and the loop.

    Attributes:
        progress: how far the run is.
        model: on its device, with its first weights; of a sharded model (fsdp) this rank's share.
        ema: the average of its weights; None if there is none.
        optimizer: over the model's parameter groups, each with its `lr_scale`.
        precision: holds fp16's loss scale.
        figures: of the steps since the last row.
        callbacks: each remembers something.
        is_whole: whether a rank alone could save the state (not with fsdp).
        saved_step: of the checkpoint that holds the state as it is after that step; -1 if none does.
    """

    def __init__(
        self,
        plan: Plan,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        strategy: Strategy,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        assert plan.precision is not None, "a plan to train by is made for a machine"
        self._plan, self._strategy = plan, strategy
        device = next(model.parameters()).device
        self.progress = Progress()
        self.model, self.optimizer, self.callbacks = model, optimizer, callbacks
        self.ema = Ema(model, plan.ema.decay) if plan.ema is not None else None
        self.precision = Precision(plan.precision, device)
        self.figures = Figures(device, len(optimizer.param_groups), plan.training.clip_grad_norm is not None)
        self.is_whole = strategy.is_whole
        self.saved_step = -1

    @property
    def device(self) -> torch.device:
        """Where the model trains."""
        return self.precision.device

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors, not copies, and JSON-able values.

        Of a sharded model (fsdp) rank 0 gets copies, gathered on the host; collective then.
        """
        self.progress.callbacks = [callback.state_dict() for callback in self.callbacks]
        return {
            **self.weights(),
            "optimizer": self._strategy.whole(self.optimizer.state_dict()),
            "scaler": self.precision.scaler.state_dict(),
            "state": self.progress.state_dict(),
            "figures": self.figures.state_dict(),
        }

    def weights(self) -> dict[str, Any]:
        """Weights and EMA as `state_dict` has them; collective where the model is sharded."""
        whole = self._strategy.whole
        return {
            "model": whole(self.model.state_dict()),
            "ema": whole(self.ema.state_dict()) if self.ema is not None else None,
        }

    def restore(self, saved: Mapping[str, Any], path: Path) -> None:
        """Goes on from a checkpoint's content; raises CheckpointError if it does not fit."""
        try:
            self.load_state_dict(saved)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except (AttributeError, LookupError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not fit the recipe: {error}; train in another folder") from error

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on exactly where `state_dict` was taken."""
        shares = self._strategy.shares
        self.model.load_state_dict(shares(saved["model"], self.model.state_dict()))
        if self.ema is not None and saved["ema"] is not None:
            self.ema.load_state_dict(shares(saved["ema"], self.ema.state_dict()))
        elif self.ema is not None:  # allowed to begin with this start: it begins with the weights as they are now
            self.ema.restart()
        self._load_optimizer(saved["optimizer"])
        if saved["scaler"]:
            self.precision.scaler.load_state_dict(saved["scaler"])
        self.progress.load_state_dict(saved["state"])
        self._keep_parts_of_auto_alone()
        self.figures.load_state_dict(saved["figures"])
        if saved["state"]["callbacks"] is not None:
            for callback, state in zip(self.callbacks, saved["state"]["callbacks"], strict=True):
                callback.load_state_dict(state)
        self.saved_step = self.progress.step

    def _load_optimizer(self, saved: Mapping[str, Any]) -> None:
        """The moments as saved, but the settings as the recipe has them now: `--allow-change` may have changed some."""
        ours = {"label", "lr_scale", *self._plan.optimizer.values} - {"lr"}  # every step sets that one
        settings = [{key: group[key] for key in group if key in ours} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict({**saved, "state": self._own_moments(saved["state"])})
        for group, values in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(values)

    def _own_moments(self, saved: Mapping[int, Any]) -> dict[int, Any]:
        """This rank's share of what the optimizer keeps for each parameter; by its number, as torch saves it."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        likes = [dict.fromkeys(saved.get(number, ()), p) for number, p in enumerate(parameters)]
        return {number: self._strategy.shares(state, likes[number]) for number, state in saved.items()}

    def _keep_parts_of_auto_alone(self) -> None:
        """What `auto` has cut into parts stays so; a size that a changed recipe fixes is meant."""
        if not self._plan.micro_batch_is_auto:
            self.progress.forward_parts = 1
        if not self._plan.evaluation_batch_is_auto:
            self.progress.evaluation_parts = 1
