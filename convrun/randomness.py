"""Every random draw is a function of (seed, position, purpose); no run state hides in a global generator.

A sample's augmentations draw from (seed, epoch, sample index), and what is done to a micro-batch on the device draws
from (seed, step, micro-batch). So resuming at any step needs no replay, and neither the number of loader workers nor
the number of processes changes a draw.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from the parts: the same parts give the same seed, other parts an independent one."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def sample_generator(seed: int, epoch: int, index: int) -> random.Random:
    """The generator that augments sample `index` (its number in the data set) in `epoch`, counted from 0."""
    return random.Random(derived_seed("sample", seed, epoch, index))


@dataclasses.dataclass
class Draws:
    """The generators of one micro-batch: `host` for decisions, `device` for tensors that are filled on the device."""

    host: random.Random
    device: torch.Generator

    @classmethod
    def of_micro_batch(cls, seed: int, step: int, micro_batch: int, purpose: str, device: torch.device) -> Draws:
        """The generators for one purpose (an augmentation's place in the list, say) of one micro-batch."""
        import torch

        number = derived_seed(purpose, seed, step, micro_batch)
        return cls(random.Random(number), torch.Generator(device).manual_seed(number))


def seed_model_draws(seed: int, step: int, micro_batch: int, part: int = 0) -> None:
    """Sets torch's global generators for one forward pass: drop path and dropout in models have no other source.

    A micro-batch that is too large for the device goes through the model in parts, each with its own draws.
    """
    import torch

    number = derived_seed("model", seed, step, micro_batch, *([part] if part else []))
    torch.default_generator.manual_seed(number)
    # torch.manual_seed would do, but where CUDA is not in use it takes a stack trace each time: 1 ms a micro-batch.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(number)
