"""After a step or an evaluation that ran out of memory: what would fit.

Among several processes the one whose memory did not suffice tells the others before any of them goes on, so all begin
anew together. Where the model's passes are themselves collective (fsdp) they cannot: the run ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from convrun.data.fetch import MicroBatch
from convrun.distributed.replicas import Replicas
from convrun.errors import DeviceMemoryError, ModelError
from convrun.text.wording import listed
from convrun.training.faults.out_of_memory import fits, largest_that_fits, more_splits

if TYPE_CHECKING:
    from convrun.training.trainer import Trainer

LESS = "take a smaller model or input_size, or another precision or device"


def fits_in_all(trainer: Trainer, attempt: Callable[[], object]) -> bool:
    """Makes an attempt, as `fits` does; whether memory sufficed in all processes. Collective, but for shards.

    Raises:
        DeviceMemoryError: it did not suffice here, and the others cannot be kept from waiting for this process.
    """
    is_fitting, replicas = fits(attempt), trainer.replicas
    if trainer.group.size == 1 or not isinstance(replicas, Replicas):
        return is_fitting
    if not is_fitting and not _makes_up(replicas):
        raise _of_one_among_several(trainer)
    return trainer.group.all_true(is_fitting)


def _makes_up(replicas: Replicas) -> bool:
    """Whether the others get what they wait for; it takes memory too."""
    made_up: list[bool] = []
    return fits(lambda: made_up.append(replicas.make_up())) and made_up[0]


def make_room(trainer: Trainer) -> None:
    """After a step that ran out of memory: micro-batches go through the model in smaller parts from now on.

    Raises:
        DeviceMemoryError: they cannot; the state before the step is saved.
    """
    trainer.undo_step()
    if not isinstance(trainer.replicas, Replicas) or not fits(trainer.replicas.renew):
        raise _of_one_among_several(trainer)
    before = trainer.state.forward_splits
    _take_smaller_parts(trainer)
    agree_on_parts(trainer, before)


def agree_on_parts(trainer: Trainer, before: int | None = None) -> None:
    """Tries a micro-batch before the first step; all processes take the smallest parts that one of them needs.

    Collective, and only of use among several: a step in which one runs out of memory can begin anew once two updates
    have shown what the processes send each other. So after the try come two updates that change nothing.

    Args:
        trainer: among several processes.
        before: in how many parts micro-batches went through the model, if that is changed already.

    Raises:
        DeviceMemoryError: they do not fit; the state is saved.
        ModelError: the model has weights that get no gradient.
    """
    plan, state = trainer.plan, trainer.state
    before = before or state.forward_splits
    if plan.processes > 1 and isinstance(trainer.replicas, Replicas) and state.step < plan.total_steps:
        micro_batch = _any_micro_batch(trainer, plan.micro_batch)
        while not fits_in_all(trainer, partial(_try, trainer, micro_batch)):
            _take_smaller_parts(trainer)
        for _ in range(2):
            if not fits(partial(_try_whole_update, trainer, micro_batch)):
                raise _of_one_among_several(trainer)
    if state.forward_splits > before:
        _note_parts(trainer)


def _note_parts(trainer: Trainer) -> None:
    """A row that tells that micro-batches go through the model in smaller parts from the next step on."""
    step, parts = trainer.state.step + 1, trainer.state.forward_splits
    row = {"kind": "event", "event": "out_of_memory", "step": step, "epoch": trainer.epoch, "forward_splits": parts}
    trainer.observer.log(row)


def _take_smaller_parts(trainer: Trainer) -> None:
    """More parts of a micro-batch, now that the present number is too small.

    Raises:
        DeviceMemoryError: the recipe fixes the micro-batch, or a part is one image already; the state is saved.
    """
    plan, state, step = trainer.plan, trainer.state, trainer.state.step + 1
    splits = more_splits(plan.micro_batch, state.forward_splits)
    if plan.micro_batch_is_auto and splits is not None:
        state.forward_splits = splits
        return
    error = _fixed(trainer, step) if not plan.micro_batch_is_auto else _one_image(f"step {step}")
    trainer.save_unless_saved()
    raise error


def _any_micro_batch(trainer: Trainer, images: int) -> MicroBatch:
    """Black images, as this process's last micro-batch of an update; memory does not depend on what they show."""
    plan, shape = trainer.plan, (images, 3, trainer.plan.input_size, trainer.plan.input_size)
    number = (plan.accumulation - 1) * plan.processes + trainer.group.rank
    blank = torch.zeros(shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    return MicroBatch(trainer.state.step, number, blank, torch.zeros(images, dtype=torch.int64))


def _try(trainer: Trainer, micro_batch: MicroBatch) -> None:
    """Forward and backward with gradients, and memory as large as the optimizer's, in place; nothing is applied."""
    slots = 0 if trainer.optimizer.state else int(trainer.plan.optimizer.component.meta.get("slots") or 0)
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    moments = [torch.empty_like(p) for p in parameters for _ in range(slots)]
    trainer.buffers.keep()
    try:
        # Twice: the second finds gradients there, as all micro-batches of a step but the first do.
        for _ in range(2):
            with trainer.replicas.summing(is_last=False):
                trainer.accumulate(micro_batch)
    finally:
        trainer.undo_step()
        del moments


def _try_whole_update(trainer: Trainer, micro_batch: MicroBatch) -> None:
    """An update's last pass, whose gradients are summed; they are not applied. Collective."""
    trainer.buffers.keep()
    try:
        trainer.accumulate_all([micro_batch])
        _check_gradients(trainer.model)
    finally:
        trainer.undo_step()


def _check_gradients(model: nn.Module) -> None:
    """Raises ModelError if a weight that is to be trained has no gradient: its sum would be waited for, for ever."""
    without = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    if without:
        raise ModelError(
            f"{len(without)} weights of {type(model).__name__} got no gradient ({listed(without)}), and several "
            "processes sum those of all; leave them out of the model, freeze them (requires_grad_(False)), or train "
            "with distributed.strategy=fsdp or in one process"
        )


def _fixed(trainer: Trainer, step: int) -> DeviceMemoryError:
    size = trainer.plan.micro_batch
    what = f"out of memory in step {step}: micro-batches of {size} images do not fit"
    fitting = fitting_micro_batch(trainer)
    if fitting is None:
        return DeviceMemoryError(f"{what}, and neither does any part of one; {LESS}", is_agreed=True)
    cure = f"training.micro_batch={fitting}"
    message = f"{what}; {cure} does (tried), training.micro_batch=auto finds out by itself"
    return DeviceMemoryError(message, cure, is_agreed=True)


def _one_image(where: str) -> DeviceMemoryError:
    return DeviceMemoryError(f"out of memory in {where}, with one image at a time; {LESS}", is_agreed=True)


def fitting_micro_batch(trainer: Trainer) -> int | None:
    """The largest part of a micro-batch (halves, quarters, ...) that fits, found out by trying; None: none does.

    Of several processes, in all; collective.
    """

    def does_fit(images: int) -> bool:
        return fits_in_all(trainer, partial(_try, trainer, _any_micro_batch(trainer, images)))

    plan = trainer.plan
    mixes = any(choice.component.meta.get("mixes", False) for choice in plan.batch_augmentations)
    return largest_that_fits(plan.micro_batch, does_fit, least=2 if mixes else 1)


def _of_one_among_several(trainer: Trainer) -> DeviceMemoryError:
    """The others wait in the midst of it: this process can neither begin anew nor try what would fit.

    Nor can it tell what is saved: only rank 0 writes, and of shares (fsdp) not even rank 0 without the others.
    """
    size, state = trainer.plan.micro_batch, trainer.state
    what = f"out of memory in step {state.step + 1}: micro-batches of {size} images do not fit"
    return _go_on_with(what, "training.micro_batch", size, state.forward_splits)


def _go_on_with(what: str, key: str, images: int, parts: int) -> DeviceMemoryError:
    splits = more_splits(images, parts)
    if splits is None:
        return DeviceMemoryError(f"{what}; {LESS}")
    return DeviceMemoryError(
        f"{what}; go on from the last checkpoint with {key}={images // splits} --allow-change {key}, or {LESS}"
    )


def update_does_not_fit(step: int) -> DeviceMemoryError:
    """The error when the optimizer ran out of memory; smaller micro-batches would not help, they are gone by then."""
    return DeviceMemoryError(
        f"out of memory in the optimizer's update of step {step}: the weights, their gradients and the optimizer's "
        f"state alone do not fit; {LESS}. The update may be half done, so this step is not saved"
    )


def smaller_evaluation(trainer: Trainer) -> int:
    """In how many parts an evaluation's batches are to go through the model, now that the present number is too small.

    Raises:
        DeviceMemoryError: the recipe fixes the batch, or a part is one image already.
    """
    plan = trainer.plan
    batch, more = plan.evaluation_batch, more_splits(plan.evaluation_batch, trainer.state.evaluation_splits)
    what = f"out of memory in the evaluation: batches of {batch} images do not fit"
    if not isinstance(trainer.replicas, Replicas):
        raise _go_on_with(what, "evaluation.batch_size", batch, trainer.state.evaluation_splits)
    if not plan.evaluation_batch_is_auto:
        cure = "evaluation.batch_size=auto"
        raise DeviceMemoryError(f"{what}; {cure}", cure, is_agreed=True)
    if more is None:
        raise _one_image("the evaluation")
    return more
