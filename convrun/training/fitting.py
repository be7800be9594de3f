"""After a step or an evaluation that ran out of memory: what would fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from convrun.errors import DeviceMemoryError
from convrun.plan import Plan
from convrun.training.out_of_memory import fits, largest_that_fits, more_splits

if TYPE_CHECKING:
    from convrun.data.feed import MicroBatch
    from convrun.training.trainer import Trainer

LESS = "take a smaller model or input_size, or another precision or device"


def make_room(trainer: Trainer) -> None:
    """After a step that ran out of memory: micro-batches go through the model in smaller parts from now on.

    Raises:
        DeviceMemoryError: they cannot; the state before the step is saved.
    """
    trainer.undo_step()
    try:
        trainer.state.forward_splits = _smaller_parts(trainer)
    except DeviceMemoryError:
        trainer.save_if_whole()
        raise
    _note_parts(trainer)


def agree_on_parts(trainer: Trainer) -> None:
    """In how many parts micro-batches fit in every process; collective, and only of use among several.

    In a step, one that runs out of memory leaves the others waiting for its gradients. So with `micro_batch: auto` each
    tries a micro-batch before they begin, with gradients and memory as large as the optimizer's in place, and all take
    the smallest parts that one of them needs. Not where the passes themselves are collective (fsdp).

    Raises:
        DeviceMemoryError: not even one image fits.
    """
    plan, state, before = trainer.plan, trainer.state, trainer.state.forward_splits
    is_left = state.step < plan.total_steps
    if not (plan.processes > 1 and plan.micro_batch_is_auto and trainer.replicas.is_whole and is_left):
        return
    with trainer.feed(state.step) as feed:
        micro_batch = next(iter(feed))
    while not all(trainer.group.from_all(fits(lambda: _try(trainer, micro_batch)))):
        splits = more_splits(plan.micro_batch, state.forward_splits)
        if splits is None:
            raise DeviceMemoryError(f"out of memory before step {state.step + 1}, with one image at a time; {LESS}")
        state.forward_splits = splits
    if state.forward_splits > before:
        _note_parts(trainer)


def _note_parts(trainer: Trainer) -> None:
    """A row that tells that micro-batches go through the model in smaller parts from the next step on."""
    step, parts = trainer.state.step + 1, trainer.state.forward_splits
    row = {"kind": "event", "event": "out_of_memory", "step": step, "epoch": trainer.epoch, "forward_splits": parts}
    trainer.observer.log(row)


def _smaller_parts(trainer: Trainer) -> int:
    """In how many parts micro-batches are to go through the model, now that the present number is too small.

    Raises:
        DeviceMemoryError: the recipe fixes the micro-batch, or a part is one image already.
    """
    plan, step = trainer.plan, trainer.state.step + 1
    if plan.processes > 1:
        what = f"out of memory in step {step}: micro-batches of {plan.micro_batch} images do not fit"
        raise _of_one_among_several(what, "training.micro_batch", plan.micro_batch)
    if not plan.micro_batch_is_auto:
        raise _fixed(trainer, step)
    splits = more_splits(plan.micro_batch, trainer.state.forward_splits)
    if splits is None:
        raise DeviceMemoryError(f"out of memory in step {step}, with one image at a time; {LESS}")
    return splits


def _try(trainer: Trainer, micro_batch: MicroBatch) -> None:
    """Forward and backward with gradients, and memory as large as the optimizer's, in place; nothing is applied."""
    slots = 0 if trainer.optimizer.state else int(trainer.plan.optimizer.component.meta.get("slots") or 0)
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    moments = [torch.empty_like(p) for p in parameters for _ in range(slots)]
    try:
        # Twice: the second finds gradients there, as all micro-batches of a step but the first do.
        for _ in range(2):
            with trainer.replicas.summing(is_last=False):
                trainer.accumulate(micro_batch)
    finally:
        trainer.undo_step()
        del moments


def _of_one_among_several(what: str, key: str, images: int) -> DeviceMemoryError:
    """The others wait in the midst of it: this process can neither begin anew nor try what would fit.

    Nor can it tell what is saved: only rank 0 writes, and of shares (fsdp) not even rank 0 without the others.
    """
    splits = more_splits(images, 1)
    if splits is None:
        return DeviceMemoryError(f"{what}; {LESS}")
    return DeviceMemoryError(
        f"{what}; go on from the last checkpoint with {key}={images // splits} --allow-change {key}, or {LESS}"
    )


def _fixed(trainer: Trainer, step: int) -> DeviceMemoryError:
    size = trainer.plan.micro_batch
    what = f"out of memory in step {step}: micro-batches of {size} images do not fit"
    fitting = fitting_micro_batch(trainer)
    if fitting is None:
        return DeviceMemoryError(f"{what}, and neither does any part of one; {LESS}")
    cure = f"training.micro_batch={fitting}"
    return DeviceMemoryError(f"{what}; {cure} does (tried), training.micro_batch=auto finds out by itself", cure)


def fitting_micro_batch(trainer: Trainer) -> int | None:
    """The largest part of a micro-batch (halves, quarters, ...) that fits, found out by trying; None: none does."""
    plan = trainer.plan
    with trainer.feed(trainer.state.step) as feed:
        micro_batch = next(iter(feed))

    def attempt(images: int) -> None:
        _try(trainer, _first_of(micro_batch, images))

    mixes = any(choice.component.meta.get("mixes", False) for choice in plan.batch_augmentations)
    return largest_that_fits(plan.micro_batch, attempt, least=2 if mixes else 1)


def _first_of(micro_batch: MicroBatch, images: int) -> MicroBatch:
    return micro_batch._replace(images=micro_batch.images[:images], labels=micro_batch.labels[:images])


def update_does_not_fit(step: int) -> DeviceMemoryError:
    """The error when the optimizer ran out of memory; smaller micro-batches would not help, they are gone by then."""
    return DeviceMemoryError(
        f"out of memory in the optimizer's update of step {step}: the weights, their gradients and the optimizer's "
        f"state alone do not fit; {LESS}. The update may be half done, so this step is not saved"
    )


def smaller_evaluation(plan: Plan, splits: int) -> int:
    """In how many parts an evaluation's batches are to go through the model, now that the present number is too small.

    Raises:
        DeviceMemoryError: the recipe fixes the batch, or a part is one image already.
    """
    batch, more = plan.evaluation_batch, more_splits(plan.evaluation_batch, splits)
    what = f"out of memory in the evaluation: batches of {batch} images do not fit"
    if plan.processes > 1:
        raise _of_one_among_several(what, "evaluation.batch_size", batch)
    if not plan.evaluation_batch_is_auto:
        cure = "evaluation.batch_size=auto"
        raise DeviceMemoryError(f"{what}; {cure}", cure)
    if more is None:
        raise DeviceMemoryError(f"out of memory in the evaluation, with one image at a time; {LESS}")
    return more
