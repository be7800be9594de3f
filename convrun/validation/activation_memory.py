"""The bytes that an image's backward pass needs, measured by forward passes on fake tensors."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from convrun.models.blocks import blocks_of
from convrun.recipe.sections import Arithmetic
from convrun.training.precision import DTYPES


@dataclasses.dataclass(frozen=True)
class ActivationBytes:
    """Of one image.

    Attributes:
        kept: what the forward pass keeps for the backward pass.
        checkpointed: the same with activation checkpointing: the blocks' inputs, what is kept outside of blocks,
            and what the largest block keeps while it is recomputed. None: the model has no blocks.
    """

    kept: int
    checkpointed: int | None


def activation_bytes(model: nn.Module, input_size: int, precision: Arithmetic) -> ActivationBytes:
    """What autograd saves of a third image in a batch: weights, and autocast's copies of them, are saved once.

    Args:
        model: on the meta device; not changed.
        input_size: side of the image.
        precision: of the forward pass. Autocast for the CPU stands in for that of a GPU, which keeps what layer norms
            take in float32 and not in bf16: about a tenth more.
    """
    # Not one and two: batch norm refuses an image alone.
    two, three = (_saved(model, images, input_size, DTYPES[precision]) for images in (2, 3))
    kept = three.total - two.total
    if not two.of_block:
        return ActivationBytes(kept, None)
    largest = max(after - before for before, after in zip(two.of_block, three.of_block, strict=True))
    return ActivationBytes(kept, three.outside - two.outside + largest)


@dataclasses.dataclass(frozen=True)
class _Saved:
    """Bytes: all that is saved, what checkpointing keeps, what each block saves beside its inputs."""

    total: int
    outside: int
    of_block: list[int]


def _saved(model: nn.Module, images: int, input_size: int, dtype: torch.dtype | None) -> _Saved:
    counter, was_training = _Counter(), model.training
    model.train()
    try:
        # Fake tensors have shapes and a device, so autocast works, but no memory.
        with FakeTensorMode(), counter.counting(blocks_of(model)):
            named = itertools.chain(model.named_parameters(), model.named_buffers())
            tensors = {name: _fake(tensor) for name, tensor in named}
            batch = torch.empty(images, 3, input_size, input_size)
            with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                functional_call(model, tensors, (batch,))
    finally:
        model.train(was_training)
    return counter.found()


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype).requires_grad_(tensor.requires_grad)


class _Counter:
    """Counts storages, each once: by the block that saves it first, and those that are inputs of blocks."""

    def __init__(self) -> None:
        self._owners: dict[int, int | None] = {}
        self._inputs: set[int] = set()
        self._storages: dict[int, torch.UntypedStorage] = {}  # held, so that no address is reused
        self._blocks = 0
        self._block: int | None = None

    @contextlib.contextmanager
    def counting(self, blocks: dict[str, nn.Module]) -> Iterator[None]:
        """Counts what autograd saves inside the context."""
        with contextlib.ExitStack() as stack:
            for block in blocks.values():
                stack.callback(block.register_forward_pre_hook(self._enter).remove)
                stack.callback(block.register_forward_hook(self._leave).remove)
            stack.enter_context(saved_tensors_hooks(self._save, lambda tensor: tensor))
            yield

    def found(self) -> _Saved:
        """The sums."""
        size = {key: storage.nbytes() for key, storage in self._storages.items()}
        of_block = [0] * self._blocks
        outside = set(self._inputs)
        for key, owner in self._owners.items():
            if owner is None:
                outside.add(key)
            elif key not in self._inputs:
                of_block[owner] += size[key]
        return _Saved(sum(size[key] for key in self._owners), sum(size[key] for key in outside), of_block)

    def _enter(self, _block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._block, self._blocks = self._blocks, self._blocks + 1
        self._inputs.update(self._noted(tensor) for tensor in inputs if isinstance(tensor, Tensor))

    def _leave(self, _block: nn.Module, _inputs: tuple[Tensor, ...], _outputs: Tensor) -> None:
        self._block = None

    def _save(self, tensor: Tensor) -> Tensor:
        self._owners.setdefault(self._noted(tensor), self._block)
        return tensor

    def _noted(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        self._storages.setdefault(storage._cdata, storage)
        return int(storage._cdata)
