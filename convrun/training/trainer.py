"""The training loop. It reads only the Plan; every draw follows from (seed, position, purpose)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from convrun.components.callbacks import Callback
from convrun.data.feed import EvalBatch, MicroBatch
from convrun.errors import Diverged
from convrun.plan import Plan
from convrun.randomness import Draws, seed_model_draws
from convrun.training.ema import Ema
from convrun.training.evaluation import EvaluationStopped, evaluate
from convrun.training.precision import Precision
from convrun.training.state import RunState
from convrun.training.window import Window

DIVERGED = (
    "the last checkpoint is from before: look at the data, lower optimizer.lr, lengthen the warm-up, or set "
    "training.clip_grad_norm"
)
BatchAugmentation = Callable[[Tensor, Tensor, Draws], tuple[Tensor, Tensor]]


class Feed(Protocol):
    """Micro-batches in order, and how long the loop waited for them."""

    wait_seconds: float

    def __iter__(self) -> Iterator[MicroBatch]: ...


class Observer(Protocol):
    """What the loop tells the outside."""

    def log(self, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl."""

    def advance(self, step: int) -> None:
        """An optimizer step is done."""

    def save(self, trainer: Trainer) -> None:
        """The state is to be saved."""


class Trainer:
    """Trains a model as a plan says.

    Args:
        plan: the plan, made for this machine.
        model: on its device, with its first weights.
        optimizer: over the model's parameter groups, each with its `lr_scale`.
        loss: (logits, targets) -> mean over the images.
        feed: opens the micro-batches from a given step on.
        observer: logs and saves.
        batch_augmentations: applied in turn to normalised images and their targets.
        validation: the evaluation's batches; iterated once for each evaluation.
        callbacks: see evaluations, may end the run.
        should_stop: asked after each step, and during evaluations.
    """

    def __init__(
        self,
        plan: Plan,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        feed: Callable[[int], AbstractContextManager[Feed]],
        observer: Observer,
        *,
        batch_augmentations: Sequence[BatchAugmentation] = (),
        validation: Iterable[EvalBatch] = (),
        callbacks: Sequence[Callback] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        assert plan.precision is not None, "a plan to train by is made for a machine"
        self.plan, self.model, self.optimizer, self.loss = plan, model, optimizer, loss
        self.feed, self.observer, self.should_stop = feed, observer, should_stop
        self.batch_augmentations, self.validation, self.callbacks = batch_augmentations, validation, callbacks
        self.device = next(model.parameters()).device
        self.precision = Precision(plan.precision, self.device)
        self.forward: Callable[[Tensor], Tensor] = torch.compile(model) if plan.compile else model
        self.ema = Ema(model, plan.ema_decay) if plan.ema_decay is not None else None
        self.state, self.window = RunState(), Window(self.device)
        self.mean, self.std = (torch.tensor(v, device=self.device)[:, None, None] for v in (plan.mean, plan.std))
        self.saved_step = -1

    def train(self) -> None:
        """Goes on from the state to the end of the plan, or until told to stop; the state is saved either way."""
        plan, state = self.plan, self.state
        self.model.train()
        with self.feed(state.step) as feed:
            micro_batches = iter(feed)
            self.finish_step(feed)  # a run that was stopped between a step and its evaluation evaluates first
            while not self.is_over():
                self.set_learning_rate(plan.lr(state.step))
                for micro_batch in islice(micro_batches, plan.accumulation):
                    self.window.add_loss(self.accumulate(micro_batch))
                self.update()
                state.step += 1
                self.window.end_step()
                self.observer.advance(state.step)
                self.finish_step(feed)
            if self.saved_step != state.step:
                self.save()

    def is_over(self) -> bool:
        """Whether there is nothing left to do, or something asks to stop."""
        return self.state.step >= self.plan.total_steps or bool(self.state.stopped_because) or self.should_stop()

    def accumulate(self, micro_batch: MicroBatch) -> Tensor:
        """Adds a micro-batch's share to the gradients of the batch's mean loss; returns that share of the loss."""
        plan, position = self.plan, (self.plan.seed, micro_batch.step, micro_batch.number)
        images = self.inputs(micro_batch.images)
        targets = micro_batch.labels.to(self.device, non_blocking=True)
        for i, augment in enumerate(self.batch_augmentations):
            images, targets = augment(
                images, targets, Draws.of_micro_batch(*position, f"augmentation {i}", self.device)
            )
        seed_model_draws(*position)
        with self.precision.autocast():
            loss = self.loss(self.forward(images), targets) / (plan.accumulation * plan.processes)
        self.precision.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def inputs(self, images: Tensor) -> Tensor:
        """uint8 images [n, 3, h, w] on the device, as (x / 255 − mean) / std."""
        return images.to(self.device, non_blocking=True).float().div_(255).sub_(self.mean).div_(self.std)

    def set_learning_rate(self, lr: float) -> None:
        """Every group gets its share of the step's learning rate."""
        self.window.lr = lr
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def update(self) -> None:
        """One optimizer step from the accumulated gradients, then one of the EMA."""
        if self.plan.clip_grad_norm is not None:
            self.precision.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip_grad_norm)
            self.window.grad_norm = norm
        is_taken = self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        # A step that fp16's scaler skipped has changed no weight, so there is nothing to average.
        if is_taken and self.ema is not None:
            self.ema.update()
        self.state.skipped_steps += not is_taken

    def finish_step(self, feed: Feed) -> None:
        """Logs, evaluates and saves what is due after the step that the state stands at."""
        plan, state, is_best = self.plan, self.state, False
        if plan.is_logged_after(state.step) and self.window.steps:
            self.log(feed)
        with self.window.paused():
            if self.is_evaluation_due():
                is_best = self.evaluate()
            is_due = plan.is_saved_after(state.step) or (is_best and plan.keep_best > 0)
            if is_due and self.saved_step != state.step:
                self.save()

    def is_evaluation_due(self) -> bool:
        """Whether the weights as they stand are still to be evaluated."""
        return self.plan.is_evaluated_after(self.state.step) and self.state.evaluated_step < self.state.step

    def log(self, feed: Feed) -> None:
        """One row about the steps since the last; the only place where the loop waits for the device."""
        state, plan = self.state, self.plan
        row = self.window.row(plan.batch_size, feed.wait_seconds)
        feed.wait_seconds = 0.0
        self.observer.log({"kind": "train", "step": state.step, "epoch": self.epoch, **row})
        self.check_finite(row["loss"])
        self.window.reset()

    def check_finite(self, loss: float) -> None:
        """Raises Diverged if a loss is no number any more."""
        if not math.isfinite(loss):
            first = self.state.step - self.window.steps + 1
            raise Diverged(f"the loss is {loss} in the steps {first} to {self.state.step}; {DIVERGED}")

    def check_weights(self) -> None:
        """Raises Diverged if a weight is no number any more; the loss of the update that broke it was fine still."""
        self.check_finite(self.window.mean_loss())
        weights = [tensor for tensor in self.model.state_dict().values() if tensor.is_floating_point()]
        if not torch.stack([tensor.isfinite().all() for tensor in weights]).all():
            raise Diverged(f"weights are not finite after step {self.state.step}; {DIVERGED}")

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return round(self.state.step / self.plan.steps_per_epoch, 4)

    def evaluate(self) -> bool:
        """Evaluates the weights and their EMA, logs both; whether the reported result is the best so far."""
        self.check_weights()
        try:
            rows = [self._score("model")]
            if self.ema is not None:
                with self.ema.swapped_in():
                    rows.append(self._score("ema"))
        except EvaluationStopped:
            return False  # the state says that this evaluation is still to be done
        self.state.evaluated_step = self.state.step
        self.saved_step = -1
        for row in rows:
            self.observer.log(row)
            reasons = [reason for c in self.callbacks if (reason := c.on_evaluation(row))]
            self.state.stopped_because = self.state.stopped_because or "; ".join(reasons)
        reported = next(row["top1"] for row in rows if row["weights"] == self.plan.report)
        return self.state.note_result(reported, self.plan.keep_best)

    def _score(self, weights: str) -> dict[str, Any]:
        score = evaluate(self.model, self.validation, self.inputs, self.precision, self.should_stop)
        return score.row(self.state.step, self.epoch, weights)

    def save(self) -> None:
        """Hands the state to the observer, unless the weights are no numbers any more."""
        self.check_weights()
        self.observer.save(self)
        self.saved_step = self.state.step

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on: plain tensors and JSON-able values."""
        self.state.callbacks = [callback.state_dict() for callback in self.callbacks]
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "state": self.state.state_dict(),
            "window": self.window.state_dict(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on exactly where `state_dict` was taken."""
        self.model.load_state_dict(saved["model"])
        if self.ema is not None and saved["ema"] is not None:
            self.ema.load_state_dict(saved["ema"])
        elif self.ema is not None:  # one that began with this start: it begins with the weights as they are now
            self.ema = Ema(self.model, self.ema.decay)
        self.load_optimizer_state(saved["optimizer"])
        if saved["scaler"]:
            self.precision.scaler.load_state_dict(saved["scaler"])
        self.state.load_state_dict(saved["state"])
        self.window.load_state_dict(saved["window"])
        if saved["state"]["callbacks"] is not None:
            for callback, state in zip(self.callbacks, saved["state"]["callbacks"], strict=True):
                callback.load_state_dict(state)
        self.saved_step = self.state.step

    def load_optimizer_state(self, saved: dict[str, Any]) -> None:
        """The moments as saved, but the settings as the recipe has them now: `--allow-change` may have changed some."""
        ours = {"label", "lr_scale", *self.plan.optimizer.values} - {"lr"}  # every step sets that one
        settings = [{key: group[key] for key in group if key in ours} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(saved)
        for group, values in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(values)
