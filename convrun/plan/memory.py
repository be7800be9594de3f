"""The memory a process needs on its device, by strategy. Plain arithmetic, no torch.

P parameters, N processes, s values per parameter that the optimizer keeps (AdamW: 2), c bytes per value in the forward
pass (bf16 and fp16: 2, float32: 4), U parameters in the largest unit that fsdp gathers at once. In bytes:

| part        | ddp                               | fsdp                                                              |
|-------------|-----------------------------------|-------------------------------------------------------------------|
| weights     | 4 P                               | 4 P / N                                                           |
| gradients   | 4 P                               | 4 P / N; and 4 P where micro-batches accumulate: they are summed  |
|             |                                   | over the processes once per step, and until then they are whole   |
| optimizer   | 4 s P                             | 4 s P / N                                                         |
| EMA         | 4 P                               | 4 P / N                                                           |
| to compute  | c P for autocast's copies of the  | (3 c + 4) U: a unit's weights, the next unit's on their way, its  |
|             | weights, none in float32          | gradient, and the gradient in float32 to be summed                |
| activations | micro-batch × those of an image   | the same                                                          |

A step needs a little less, because activations are freed while gradients are computed: on the CPU the peak of all
tensors together was 0.87 to 0.99 of the sum (ddp on one process; ConvNeXt atto, tiny and isotropic small; float32 and
bf16; each with and without activation checkpointing). Libraries need more on top: the CUDA context, cuDNN's work space,
fragmentation.
"""

from __future__ import annotations

import dataclasses

from convrun.recipe.sections import Strategy

FLOAT32 = 4


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """The sizes of a model that its memory depends on.

    Attributes:
        parameters: trainable values.
        largest_unit: those of the largest unit that is gathered at once (fsdp).
        activations: bytes that the backward pass of one image needs.
        checkpointed_activations: the same with activation checkpointing; None: the model has no blocks.
    """

    parameters: int
    largest_unit: int
    activations: int
    checkpointed_activations: int | None


@dataclasses.dataclass(frozen=True)
class MemoryNeed:
    """Bytes on the device of one process, by what they hold."""

    weights: int
    gradients: int
    optimizer: int
    ema: int
    to_compute: int
    activations: int

    @property
    def total(self) -> int:
        """All of it, at the worst moment."""
        return sum(dataclasses.astuple(self))


def memory_need(
    size: ModelSize,
    strategy: Strategy,
    processes: int,
    *,
    micro_batch: int,
    accumulation: int,
    slots: int,
    has_ema: bool,
    compute_bytes: int,
    is_checkpointed: bool,
) -> MemoryNeed:
    """What one of several processes needs."""
    activations = size.checkpointed_activations if is_checkpointed else size.activations
    assert activations is not None
    held = FLOAT32 * size.parameters
    is_sharded = strategy == "fsdp" and processes > 1
    own = -(-held // processes) if is_sharded else held
    copies = compute_bytes * size.parameters if compute_bytes < FLOAT32 else 0
    gathered = (3 * compute_bytes + FLOAT32) * size.largest_unit
    return MemoryNeed(
        weights=own,
        gradients=own + (held if is_sharded and accumulation > 1 else 0),
        optimizer=slots * own,
        ema=own if has_ema else 0,
        to_compute=gathered if is_sharded else copies,
        activations=micro_batch * activations,
    )
