"""Out of memory: a step, or an evaluation, is retried in smaller parts; or the run ends with what would fit.

Of several ranks, the one whose memory did not suffice tells the others before any of them goes on, so all retry
together. Where the model's passes are themselves collective (fsdp) they cannot: the run ends.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from convrun.data.pipeline import StepBatches
from convrun.errors import DeviceMemoryError
from convrun.plan import Plan
from convrun.plan.arithmetic import divisors
from convrun.training.faults.trials import Trials
from convrun.training.figures import Gradient
from convrun.training.recording.contract import Recorder
from convrun.training.state import Progress
from convrun.training.step import Step

T = TypeVar("T")
LESS = "take a smaller model or input_size, or another precision or device"
# What says the same without being a torch.OutOfMemoryError: torch's allocator on the CPU, and CUDA's libraries.
SIGNS = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
# oneDNN computes convolutions on the CPU and gives no reason; what it can compute, it has settled before it says these.
SIGNS_OF_ONEDNN = ("could not create a primitive", "could not create a memory object")


class EvaluationDoesNotFit(Exception):
    """A batch did not fit into the device's memory, on this rank or another."""


class Memory:
    """What becomes of a step or an evaluation that the device has too little memory for.

    Args:
        plan: says which sizes convrun may choose.
        progress: holds in how many parts batches go through the model.
        step: what is retried.
        recorder: is told of retries.
        save: saves the state, unless it is saved already.
    """

    def __init__(
        self, plan: Plan, progress: Progress, step: Step, recorder: Recorder, save: Callable[[], None]
    ) -> None:
        self.plan, self.progress, self.step = plan, progress, step
        self.recorder, self.save = recorder, save
        self.strategy = step.strategy
        self.group = self.strategy.group
        self.trials = Trials(plan, step)

    # A step ----------------------------------------------------------------------------------------------------------

    def retried(self, compute: Callable[[StepBatches], Gradient], batches: StepBatches) -> Gradient:
        """The gradient of a step; computed again, in smaller parts, as long as memory does not suffice on some rank.

        Raises:
            DeviceMemoryError: no smaller parts can be tried; the state before the step is saved where it can be.
        """
        found: list[Gradient] = []
        while not self._fits_on_all(lambda: found.append(compute(batches))):
            found.clear()  # this rank's may be there: memory was out on another
            batches.rewind()
            self._make_room()
        return found[0]

    def applied(self, update: Callable[[Gradient, float], None], gradient: Gradient, lr: float) -> None:
        """Updates the weights.

        Raises:
            DeviceMemoryError: memory does not suffice; smaller parts would not help, activations are gone by then.
        """
        if not fits(lambda: update(gradient, lr)):
            raise DeviceMemoryError(
                f"out of memory in the optimizer's update of step {gradient.step}: the weights, their gradients and "
                f"the optimizer's state alone do not fit; {LESS}. The update may be half done, so this step is not "
                "saved"
            )

    def try_first(self) -> None:
        """Tries a micro-batch before the first step; all ranks take the smallest parts that one of them needs.

        Collective, and only of use among several: a step in which one runs out of memory can be retried once two steps
        have shown what the ranks send each other. So after the trial come two steps that are not applied.

        Raises:
            DeviceMemoryError: it does not fit; the state is saved.
            ModelError: the model has weights that get no gradient.
        """
        before = self.progress.forward_parts
        self._try()
        self._note_parts(before)

    def _make_room(self) -> None:
        """After a step that ran out of memory: micro-batches go through the model in smaller parts from now on."""
        self.step.undo()
        if not self.strategy.can_retry or not fits(self.step.renew):
            raise self._of_one_among_several()
        before = self.progress.forward_parts
        self._take_smaller_parts()
        self._try()
        self._note_parts(before)

    def _try(self) -> None:
        if self.group.size == 1 or not self.strategy.can_retry or self.progress.step >= self.plan.total_steps:
            return
        while not self._fits_on_all(partial(self.trials.passes, self.plan.micro_batch)):
            self._take_smaller_parts()
        for _ in range(2):
            if not fits(self.trials.whole_step):
                raise self._of_one_among_several()

    def _fits_on_all(self, attempt: Callable[[], object]) -> bool:
        """Makes an attempt, as `fits` does; whether memory sufficed on all ranks. Collective, but for shards.

        Raises:
            DeviceMemoryError: it did not suffice here, and the others cannot be kept from waiting for this rank.
        """
        is_fitting = fits(attempt)
        if self.group.size == 1 or not self.strategy.can_retry:
            return is_fitting
        if not is_fitting and not self._makes_up():
            raise self._of_one_among_several()
        return self.group.all_true(is_fitting)  # the hosts wait for each other, no device does

    def _makes_up(self) -> bool:
        """Whether the other ranks get what they wait for; it takes memory too."""
        made_up: list[bool] = []
        return fits(lambda: made_up.append(self.strategy.make_up())) and made_up[0]

    def _take_smaller_parts(self) -> None:
        """More parts of a micro-batch, now that the present number is too small.

        Raises:
            DeviceMemoryError: the recipe fixes the micro-batch, or a part is one image already; the state is saved.
        """
        step = self.progress.step + 1
        parts = more_parts(self.plan.micro_batch, self.progress.forward_parts)
        if self.plan.micro_batch_is_auto and parts is not None:
            self.progress.forward_parts = parts
            return
        error = _one_image(f"step {step}") if self.plan.micro_batch_is_auto else self._fixed(step)
        self.save()
        raise error

    def _note_parts(self, before: int) -> None:
        """A row that tells that micro-batches go through the model in smaller parts from the next step on."""
        if self.progress.forward_parts > before:
            step, parts = self.progress.step + 1, self.progress.forward_parts
            epoch = self.plan.epoch_after(self.progress.step)
            self.recorder.log(
                {"kind": "event", "event": "out_of_memory", "step": step, "epoch": epoch, "forward_parts": parts}
            )

    # An evaluation ---------------------------------------------------------------------------------------------------

    def evaluated(self, evaluate: Callable[[int], T]) -> T:
        """The result of an evaluation; made again, its batches in smaller parts, as long as memory does not suffice.

        Args:
            evaluate: given the number of parts; makes its passes by `passes`.

        Raises:
            DeviceMemoryError: no smaller parts can be tried; the state is saved where it can be.
        """
        while True:
            try:
                return evaluate(self.progress.evaluation_parts)
            except EvaluationDoesNotFit:
                self.progress.evaluation_parts = parts = self._smaller_evaluation()
                self.recorder.say(f"out of memory in the evaluation: it is retried, its batches in {parts} parts each")

    def passes(self, attempt: Callable[[], None]) -> None:
        """Makes the passes of an evaluation's batch; EvaluationDoesNotFit on all ranks if one lacks memory for it."""
        if not self._fits_on_all(attempt):
            raise EvaluationDoesNotFit

    def _smaller_evaluation(self) -> int:
        """In how many parts an evaluation's batches go through the model from now on: the present number is too small.

        Raises:
            DeviceMemoryError: the recipe fixes the batch, or a part is one image already.
        """
        batch, parts = self.plan.evaluation_batch, self.progress.evaluation_parts
        what = f"out of memory in the evaluation: batches of {batch} images do not fit"
        error: DeviceMemoryError | None = None
        if not self.strategy.can_retry:
            error = _go_on_with(what, "evaluation.batch_size", batch, parts)
        elif not self.plan.evaluation_batch_is_auto:
            cure = "evaluation.batch_size=auto"
            error = DeviceMemoryError(f"{what}; {cure}", cure, is_agreed=True)
        elif (more := more_parts(batch, parts)) is None:
            error = _one_image("the evaluation")
        else:
            return more
        if self.strategy.is_whole:  # else other ranks, which wait elsewhere, hold parts of the state
            self.save()
        raise error

    # Errors ----------------------------------------------------------------------------------------------------------

    def _fitting_micro_batch(self) -> int | None:
        """The largest part of a micro-batch (halves, quarters, ...) that fits, found out by trying; None: none does.

        Of several ranks, on all; collective.
        """

        def does_fit(images: int) -> bool:
            return self._fits_on_all(partial(self.trials.passes, images))

        mixes = any(choice.component.meta.get("mixes", False) for choice in self.plan.batch_augmentations)
        return largest_that_fits(self.plan.micro_batch, does_fit, least=2 if mixes else 1)

    def _fixed(self, step: int) -> DeviceMemoryError:
        size = self.plan.micro_batch
        what = f"out of memory in step {step}: micro-batches of {size} images do not fit"
        fitting = self._fitting_micro_batch()
        if fitting is None:
            return DeviceMemoryError(f"{what}, and neither does any part of one; {LESS}", is_agreed=True)
        cure = f"training.micro_batch={fitting}"
        message = f"{what}; {cure} does (tried), training.micro_batch=auto finds out by itself"
        return DeviceMemoryError(message, cure, is_agreed=True)

    def _of_one_among_several(self) -> DeviceMemoryError:
        """The others wait in the midst of it: this rank can neither retry nor try what would fit.

        Nor can it tell what is saved: only rank 0 writes, and of shares (fsdp) not even rank 0 without the others.
        """
        size, progress = self.plan.micro_batch, self.progress
        what = f"out of memory in step {progress.step + 1}: micro-batches of {size} images do not fit"
        return _go_on_with(what, "training.micro_batch", size, progress.forward_parts)


def _one_image(where: str) -> DeviceMemoryError:
    return DeviceMemoryError(f"out of memory in {where}, with one image at a time; {LESS}", is_agreed=True)


def _go_on_with(what: str, key: str, images: int, parts: int) -> DeviceMemoryError:
    more = more_parts(images, parts)
    if more is None:
        return DeviceMemoryError(f"{what}; {LESS}")
    return DeviceMemoryError(
        f"{what}; go on from the last checkpoint with {key}={images // more} --allow-change {key}, or {LESS}"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory did not suffice."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and (any(sign in text for sign in SIGNS) or text in SIGNS_OF_ONEDNN)
    )


def fits(attempt: Callable[[], object]) -> bool:
    """Makes an attempt; False if the device's memory did not suffice. What the attempt held is free again then."""
    try:
        attempt()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Not in the `except` above: as long as the error lives, its traceback holds every tensor of the attempt.
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    return False


def more_parts(images: int, parts: int) -> int | None:
    """The next number of equal parts to cut a batch into, at least twice as many; None if a part is one image."""
    return next((d for d in divisors(images) if d >= 2 * parts), images if parts < images else None)


def largest_that_fits(images: int, does_fit: Callable[[int], bool], least: int = 1) -> int | None:
    """How many images fit, found out by trying: the parts of a batch that does not fit whole, each half the last."""
    parts = more_parts(images, 1)
    while parts is not None and images // parts >= least:
        if does_fit(images // parts):
            return images // parts
        parts = more_parts(images, parts)
    return None
