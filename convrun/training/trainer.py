"""The training loop. It reads only the Plan; every draw follows from (seed, position, purpose)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from convrun.contracts.callback import Callback
from convrun.data.pipeline import EvalBatch, MicroBatch
from convrun.distributed.group import Group
from convrun.distributed.replicas import Replicas
from convrun.distributed.sharding import Shards
from convrun.errors import DeviceMemoryError
from convrun.plan import Plan
from convrun.randomness import Draws, seed_model_draws
from convrun.training.buffers import Buffers
from convrun.training.ema import Ema
from convrun.training.evaluation import EvaluationDoesNotFit, EvaluationStopped, evaluate
from convrun.training.faults.out_of_memory import fits
from convrun.training.fitting import agree_on_parts, fits_in_all, make_room, smaller_evaluation, update_does_not_fit
from convrun.training.gradients import Gradients
from convrun.training.observer import Observer
from convrun.training.precision import Precision
from convrun.training.review import Review
from convrun.training.state import RunState
from convrun.training.trainer_state import load_state, state_of
from convrun.training.window import Window

BatchAugmentation = Callable[[Tensor, Tensor, Draws], tuple[Tensor, Tensor]]


class Feed(Protocol):
    """Micro-batches step by step, and how long the loop waited for them."""

    wait_seconds: float

    def of_step(self, step: int) -> Iterable[MicroBatch]:
        """A step's micro-batches of this process."""
        ...


class Trainer:
    """Trains a model as a plan says.

    Args:
        plan: the plan, made for this machine.
        model: on its device, with its first weights (convrun.training.placing).
        optimizer: over the model's parameter groups, each with its `lr_scale`.
        loss: (logits, targets) -> mean over the images.
        feed: opens the micro-batches from a given step on.
        observer: logs and saves.
        batch_augmentations: applied in turn to normalised images and their targets.
        validation: the evaluation's batches; iterated once for each evaluation.
        callbacks: see evaluations, may end the run.
        should_stop: asked after each step, and during evaluations; by all processes alike.
        group: the processes that train the model together, each with its micro-batches of every batch.
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
        group: Group | None = None,
    ) -> None:
        assert plan.precision is not None, "a plan to train by is made for a machine"
        self.plan, self.model, self.optimizer, self.loss = plan, model, optimizer, loss
        self.feed, self.observer, self.should_stop = feed, observer, should_stop
        self.batch_augmentations, self.validation, self.callbacks = batch_augmentations, validation, callbacks
        self.device = next(model.parameters()).device
        self.precision = Precision(plan.precision, self.device)
        self.group = group or Group()
        self.replicas: Replicas | Shards = (
            Shards(model, self.group) if plan.is_sharded else Replicas(model, self.group, plan.training.compile)
        )
        self.ema = Ema(model, plan.ema.decay) if plan.ema is not None else None
        self.state, self.buffers = RunState(), Buffers(model)
        self.gradients = Gradients(optimizer.param_groups, self.device, self.replicas.norms_of_all)
        is_clipped = plan.training.clip_grad_norm is not None
        self.window = Window(self.device, len(optimizer.param_groups), is_clipped=is_clipped)
        mean, std = plan.data.settings.mean, plan.data.settings.std
        self.mean, self.std = (torch.tensor(v, device=self.device)[:, None, None] for v in (mean, std))
        self.review = Review(self)
        self.saved_step = -1

    def train(self) -> None:
        """Goes on from the state to the end of the plan, or until told to stop; the state is saved either way."""
        self.model.train()
        agree_on_parts(self)
        is_over = False
        while not is_over:
            with self.feed(self.state.step) as feed:
                is_over = self.take_steps(feed)
            if not is_over:
                make_room(self)
        self.save_unless_saved()

    def take_steps(self, feed: Feed) -> bool:
        """Step after step until the run is over; False if one ran out of memory and is to begin anew."""
        plan, state = self.plan, self.state
        self.finish_step(feed)  # a run that was stopped between a step and its evaluation evaluates first
        while not self.is_over():
            self.set_learning_rate(plan.lr(state.step))
            self.buffers.keep()
            if not fits_in_all(self, partial(self.accumulate_all, feed.of_step(state.step))):
                return False
            if not fits(self.update):
                raise update_does_not_fit(state.step + 1)
            state.step += 1
            self.observer.advance(state.step)
            self.finish_step(feed)
        return True

    def is_over(self) -> bool:
        """Whether there is nothing left to do, or something asks to stop."""
        return self.state.step >= self.plan.total_steps or bool(self.state.stopped_because) or self.should_stop()

    def accumulate_all(self, micro_batches: Iterable[MicroBatch]) -> None:
        """Sums up the gradients of one step."""
        self.replicas.begin_update()
        for micro_batch in micro_batches:
            self.window.add_loss(self.accumulate(micro_batch))

    def accumulate(self, micro_batch: MicroBatch) -> Tensor:
        """Adds a micro-batch's share to the gradients of the batch's mean loss; returns that share of the loss.

        With its last one of a step, the gradients of all processes are summed.
        """
        position, parts = (self.plan.seed, micro_batch.step, micro_batch.number), self.state.forward_splits
        images, targets = self.augmented(micro_batch, position)
        micro_batches, shares = self.plan.accumulation * self.plan.processes, []
        is_last = micro_batch.number >= micro_batches - self.plan.processes
        for part, (x, y) in enumerate(zip(images.chunk(parts), targets.chunk(parts), strict=True)):
            seed_model_draws(*position, part)
            with self.replicas.summing(is_last and part == parts - 1):
                with self.precision.autocast():
                    loss = self.loss(self.replicas.forward(x), y) / (micro_batches * len(images) / len(x))
                self.precision.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            shares.append(loss.detach())
        return sum(shares[1:], shares[0])

    def augmented(self, micro_batch: MicroBatch, position: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """A micro-batch as the model gets it, and its targets, on the device."""
        images, targets = self.inputs(micro_batch.images), micro_batch.labels.to(self.device, non_blocking=True)
        for i, augment in enumerate(self.batch_augmentations):
            draws = Draws.of_micro_batch(*position, f"augmentation {i}", self.device)
            images, targets = augment(images, targets, draws)
        return images, targets

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
        self.group.add_up(self.window.loss)
        self.precision.scaler.unscale_(self.optimizer)
        norms = self.gradients.norms()
        self.window.end_step(self.state.step + 1, norms, self.precision.loss_scale)
        if self.plan.training.nonfinite == "skip" and not self.review.steps():
            self.precision.leave_out()
            self.undo_step()
            return
        if self.plan.training.clip_grad_norm is not None:
            self.gradients.clip(norms[0], self.plan.training.clip_grad_norm)
        is_taken = self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        # A step that fp16's scaler skipped has changed no weight, so there is nothing to average.
        if is_taken and self.ema is not None:
            self.ema.update()
        self.state.skipped_steps += not is_taken

    def undo_step(self) -> None:
        """Everything is as before the step under way: nothing of it was applied but to the model's buffers."""
        self.optimizer.zero_grad(set_to_none=True)
        self.buffers.restore()
        self.window.forget_step()

    def finish_step(self, feed: Feed) -> None:
        """Logs, evaluates and saves what is due after the step that the state stands at."""
        plan, state, is_best = self.plan, self.state, False
        if self.window.is_full:
            self.review.steps()
        if plan.is_logged_after(state.step) and self.window.steps:
            self.log(feed)
        with self.window.paused():
            if self.is_evaluation_due():
                is_best = self.evaluate()
            is_due = plan.is_saved_after(state.step) or (is_best and plan.checkpoints.keep.best > 0)
            if is_due:
                self.save_unless_saved()

    def is_evaluation_due(self) -> bool:
        """Whether the weights as they stand are still to be evaluated."""
        return self.plan.is_evaluated_after(self.state.step) and self.state.evaluated_step < self.state.step

    def log(self, feed: Feed) -> None:
        """One row about the steps since the last; but for saves and evaluations, only here the loop waits."""
        self.review.steps()
        row = self.window.row(self.plan.training.batch_size, feed.wait_seconds)
        feed.wait_seconds = 0.0
        self.observer.log({"kind": "train", "step": self.state.step, "epoch": self.epoch, **row})
        self.window.reset()

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return round(self.state.step / self.plan.steps_per_epoch, 4)

    def evaluate(self) -> bool:
        """Evaluates the weights and their EMA, logs both; whether the reported result is the best so far."""
        self.review.weights()
        try:
            rows = [self._score("model")]
            if self.ema is not None:
                with self.ema.swapped_in():
                    rows.append(self._score("ema"))
        except EvaluationStopped:
            return False  # the state says that this evaluation is still to be done
        except DeviceMemoryError:
            self.save_if_whole()
            raise
        self.state.evaluated_step = self.state.step
        self.saved_step = -1
        for row in rows:
            self.observer.log(row)
            self.show_callbacks(row)
        reported = next(row["top1"] for row in rows if row["weights"] == self.plan.report)
        return self.state.note_result(reported, self.plan.checkpoints.keep.best)

    def show_callbacks(self, row: dict[str, Any]) -> None:
        """Rank 0's may end the run: one may look at a clock or a file, and all ranks must end after the same step."""
        reasons = [reason for c in self.callbacks if (reason := c.on_evaluation(row))]
        because = self.group.from_first(lambda: "; ".join(reasons))
        self.state.stopped_because = self.state.stopped_because or because

    def _score(self, weights: str) -> dict[str, Any]:
        state, fits_here = self.state, partial(fits_in_all, self)
        inputs, stop, group = self.inputs, self.should_stop, self.group
        data = (self.model, self.validation, inputs, self.precision, stop)
        while True:
            try:
                score = evaluate(*data, state.evaluation_splits, group, self.take_part, fits_here)
            except EvaluationDoesNotFit:
                state.evaluation_splits = parts = smaller_evaluation(self)
                self.observer.say(f"out of memory in the evaluation: it begins anew, its batches in {parts} parts each")
            else:
                return score.row(state.step, self.epoch, weights)

    def take_part(self) -> None:
        """A forward pass without images of its own, if the other processes' passes need this one's weights."""
        size = self.plan.input_size
        if not self.replicas.is_whole:
            self.model(torch.zeros(1, 3, size, size, device=self.device))

    def save_if_whole(self) -> None:
        """Saves what the last checkpoint lacks, unless other processes, which wait elsewhere, hold parts of it."""
        if self.replicas.is_whole:
            self.save_unless_saved()

    def save_unless_saved(self) -> None:
        """Saves the state, unless it is that of the last checkpoint."""
        if self.saved_step != self.state.step:
            self.save()

    def save(self) -> None:
        """Hands the state to the observer, unless the weights are no numbers any more."""
        self.review.weights()
        self.observer.save(self)
        self.saved_step = self.state.step

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on: plain tensors and JSON-able values."""
        return state_of(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on exactly where `state_dict` was taken."""
        load_state(self, saved)
