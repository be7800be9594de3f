"""One optimizer step: micro-batches -> gradient -> new weights and EMA.

Until `update` nothing is applied, so a step that failed can be undone and retried (`convrun.training.faults`).

The loss is scaled so that gradients need no division afterwards. The batch's loss is the mean over its B images, and a
micro-batch's loss the mean over its own n images; there are B / n micro-batches on all ranks together. So

    mean over the batch = sum over all micro-batches of (mean over the micro-batch) / (B / n),

and the gradient of the left side is the plain sum of the gradients of the right side's terms: `.grad` adds them up over
a rank's micro-batches, one all-reduce over the ranks. Whoever divides again, as DistributedDataParallel does by
default, trains with another learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convrun.data.pipeline import MicroBatch
from convrun.distributed.strategy import Strategy, own_part
from convrun.plan import Plan
from convrun.randomness import Draws, seed_model_draws
from convrun.training.figures import Gradient
from convrun.training.model import Inputs
from convrun.training.state import RunState

Loss = Callable[[Tensor, Tensor], Tensor]
BatchAugmentation = Callable[[Tensor, Tensor, Draws], tuple[Tensor, Tensor]]


class Step:
    """Trains a model, step by step.

    Args:
        plan: the plan, made for this machine.
        state: the model and all that belongs to it.
        loss: (logits, targets) -> mean over the images.
        inputs: uint8 images -> normalised ones on the device.
        augmentations: applied in turn to normalised images and their targets.
        strategy: how the ranks hold and train the model together.
    """

    def __init__(
        self,
        plan: Plan,
        state: RunState,
        loss: Loss,
        inputs: Inputs,
        augmentations: Sequence[BatchAugmentation],
        strategy: Strategy,
    ) -> None:
        self.plan, self.state, self.loss = plan, state, loss
        self.inputs, self.augmentations, self.strategy = inputs, augmentations, strategy
        self.buffers = Buffers(state.model)
        self.micro_batches = plan.accumulation * plan.processes
        self._forward = self._compiled()

    def gradient(self, micro_batches: Iterable[MicroBatch]) -> Gradient:
        """Forward and backward passes of this rank's micro-batches; collective, the gradient is that of all ranks."""
        precision, optimizer = self.state.precision, self.state.optimizer
        self.strategy.begin_step()  # from here on the other ranks wait for this one's gradients
        self.buffers.keep()  # copies of batch norm's statistics; ConvNeXt has none
        loss = torch.zeros((), dtype=torch.float64, device=self.state.device)
        for micro_batch in micro_batches:  # waits where the loader is behind
            loss += self.accumulate(micro_batch)  # on the device: reading it here would stop the host every time
        self.strategy.add_up(loss)  # one number a step; the host does not wait for it
        precision.unscale(optimizer)  # fp16: a pass over the gradients; nothing in other arithmetic
        # A pass over the gradients each step, clipped or not: a gradient that is not finite is found by its norm.
        norms = gradient_norms(optimizer.param_groups, self.strategy)
        return Gradient(self.state.progress.step + 1, loss, norms, precision.loss_scale)

    def accumulate(self, micro_batch: MicroBatch) -> Tensor:
        """Adds a micro-batch's share to the gradients; returns its share of the batch's mean loss, on the device.

        With a rank's last one of a step, the gradients of all ranks are summed.
        """
        precision, parts = self.state.precision, self.state.progress.forward_parts
        position = (self.plan.seed, micro_batch.step, micro_batch.number)
        is_last = micro_batch.number >= self.micro_batches - self.plan.processes
        images, targets = self.augmented(micro_batch, position)
        shares: list[Tensor] = []
        for part, (x, y) in enumerate(_in_parts(images, targets, parts)):  # one part, unless memory ran out
            # Drop path and dropout draw from torch's global generator, which follows from the position like all draws.
            seed_model_draws(*position, part)
            # Summing gradients over the ranks is the dearest message there is: once a step, under its last backward.
            with self.strategy.summing(is_last and part == parts - 1):
                with precision.autocast():
                    loss = self.loss(self._forward(x), y) / (self.micro_batches * len(images) / len(x))
                precision.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            shares.append(loss.detach())
        return sum(shares[1:], shares[0])

    def augmented(self, micro_batch: MicroBatch, position: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """A micro-batch as the model gets it, and its targets, on the device."""
        # From page-locked memory both copies run beside the host; from ordinary memory (CPU) nothing is copied.
        images, targets = self.inputs(micro_batch.images), micro_batch.labels.to(self.state.device, non_blocking=True)
        for i, augment in enumerate(self.augmentations):
            draws = Draws.of_micro_batch(*position, f"augmentation {i}", self.state.device)
            images, targets = augment(images, targets, draws)
        return images, targets

    def update(self, gradient: Gradient, lr: float) -> None:
        """Applies the gradient: one step of the optimizer, then one of the EMA.

        Args:
            gradient: what `gradient` has just computed.
            lr: learning rate of the step; a parameter group gets its `lr_scale` of it.
        """
        state, most = self.state, self.plan.training.clip_grad_norm
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        if most is not None:
            parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grads_with_norm_(parameters, most, gradient.norms[0])  # on the device, by min(1, most / norm)
        is_taken = state.precision.step(state.optimizer)  # with fp16 the scaler itself waits for the device
        state.optimizer.zero_grad(set_to_none=True)  # freed, so that activations may have their memory
        # A step that fp16's scaler skipped has changed no weight, so there is nothing to average.
        if is_taken and state.ema is not None:
            state.ema.update()
        state.progress.overflow_steps += not is_taken

    def undo(self) -> None:
        """All is as before `gradient`, which may have failed anywhere: but for buffers it has applied nothing."""
        self.state.optimizer.zero_grad(set_to_none=True)
        self.buffers.restore()
        self.state.precision.forget_step()

    def renew(self) -> None:
        """After a failed step: makes again what sums the ranks' gradients, and what torch.compile made of it."""
        self._forward = None  # it holds memory that the new one needs
        self.strategy.renew()
        self._forward = self._compiled()

    def _compiled(self) -> Any:
        return torch.compile(self.strategy.forward) if self.plan.training.compile else self.strategy.forward


@torch.no_grad()
def gradient_norms(groups: Sequence[dict[str, Any]], strategy: Strategy) -> Tensor:
    """float32 [1 + groups]: the norm of the whole gradient, and of each parameter group's; the host does not wait.

    A number that is not finite makes its group's norm and the whole one not finite. So does, in float32, a norm beyond
    1.8e19.
    """
    of_groups = [[own_part(p.grad) for p in group["params"] if p.grad is not None] for group in groups]
    flat = [gradient for group in of_groups for gradient in group]
    if not flat:
        return torch.zeros(1 + len(groups), device=groups[0]["params"][0].device)
    each = strategy.norms_of_all(torch.stack(torch._foreach_norm(flat)))
    norms = torch._foreach_norm(torch.split(each, [len(group) for group in of_groups]))
    # The order of torch's own clip_grad_norm_: the norm of the tensors' norms.
    return torch.stack([torch.linalg.vector_norm(each), *norms])


def _in_parts(images: Tensor, targets: Tensor, parts: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(images.chunk(parts), targets.chunk(parts), strict=True)


class Buffers:
    """A model's buffers, such as batch norm's running statistics, as they were before a step.

    Copies, for a forward pass changes the originals. ConvNeXt has none, and pays nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        self._own = list(model.buffers())
        self._copies: list[Tensor] = [torch.empty_like(buffer) for buffer in self._own]

    @torch.no_grad()
    def keep(self) -> None:
        """Notes the buffers as they are."""
        for copy, own in zip(self._copies, self._own, strict=True):
            copy.copy_(own)

    @torch.no_grad()
    def restore(self) -> None:
        """Brings back what was noted last."""
        for copy, own in zip(self._copies, self._own, strict=True):
            own.copy_(copy)
