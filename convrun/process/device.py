"""The device that this process trains on, and what the plan needs to know of the machine."""

from __future__ import annotations

from typing import Literal

from convrun.errors import ConvrunError, UsageError
from convrun.process.machine import Machine
from convrun.process.threads import cores
from convrun.process.world import World

Device = Literal["auto", "cpu", "cuda"]


def choose_device(device: Device, world: World) -> Literal["cpu", "cuda"]:
    """What this process trains on: its own GPU, which becomes torch's current device, or else the CPU.

    Raises:
        UsageError: `cuda` is asked for, and torch sees no GPU.
        ConvrunError: this node has fewer GPUs than processes.
    """
    if device == "cpu":
        return "cpu"
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        if device == "cuda":
            raise UsageError("--device cuda: torch sees no GPU here; check nvidia-smi and torch.version.cuda")
        return "cpu"
    # Some launchers let each process see its own GPU only: then it is number 0 for every process.
    if 1 < count < world.local_size:
        raise ConvrunError(
            f"{world.local_size} processes were started on {world.host}, but torch sees {count} GPUs there; start as "
            "many as there are GPUs, or train with --device cpu"
        )
    torch.cuda.set_device(world.local_rank if count > 1 else 0)
    return "cuda"


def device_identity(device: Literal["cpu", "cuda"]) -> str:
    """The unique id of this process's GPU; empty on the CPU, which processes may share."""
    import torch

    return str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid) if device == "cuda" else ""


def this_machine(device: Device = "auto", world: World | None = None) -> Machine:
    """What a plan needs to know of this machine, and of the processes of the run.

    Raises:
        UsageError: `cuda` is asked for, and torch sees no GPU.
        ConvrunError: this node has fewer GPUs than processes.
    """
    import torch

    world = world or World()
    chosen = choose_device(device, world)
    has_bf16 = chosen == "cuda" and torch.cuda.is_bf16_supported()
    return Machine(world.size, chosen, has_bf16, cores=cores(world), nodes=world.nodes)


def device_text(machine: Machine) -> str:
    """The devices as text: `CPU, 2 threads`, `2 nodes × 8 (NVIDIA H100; 16 processes, nccl)`."""
    import torch

    if machine.device == "cuda":
        one = torch.cuda.get_device_name()
    else:
        threads = torch.get_num_threads()
        one = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    if machine.processes == 1:
        return one
    backend = "nccl" if machine.device == "cuda" else "gloo"
    where = f"{machine.nodes} nodes" if machine.nodes > 1 else "1 node"
    return f"{where} × {machine.processes // machine.nodes} ({one}; {machine.processes} processes, {backend})"
