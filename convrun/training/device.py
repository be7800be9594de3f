"""The machine a run finds itself on."""

from __future__ import annotations

import os
from typing import Literal

import torch

from convrun.errors import ConvrunError, UsageError
from convrun.plan import Machine


def this_machine(device: Literal["auto", "cpu", "cuda"] = "auto") -> Machine:
    """One process on the first GPU, or on the CPU where there is none.

    Raises:
        UsageError: `cuda` is asked for and there is none.
        ConvrunError: the process was started as one of several.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        raise ConvrunError(
            f"WORLD_SIZE is {world}: this version trains in one process; start it once, without torchrun or srun"
        )
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UsageError("--device cuda: torch sees no GPU here; check nvidia-smi and torch.version.cuda")
    if device == "cpu" or not has_cuda:
        return Machine(device="cpu")
    return Machine(device="cuda", has_bf16=torch.cuda.is_bf16_supported())


def device_text(machine: Machine) -> str:
    """The device's name, for people."""
    if machine.device == "cuda":
        return torch.cuda.get_device_name(0)
    return f"CPU, {torch.get_num_threads()} threads"
