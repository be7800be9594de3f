"""The threads of this process: how many, and how long they spin while they wait for each other. No torch at the top."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from convrun.process.world import World

SPIN_COUNT = "GOMP_SPINCOUNT"
# A user who sets one of these has decided how threads wait (OpenMP's own variable; libgomp's; Intel's and LLVM's).
DECIDED_BY = ("OMP_WAIT_POLICY", SPIN_COUNT, "KMP_BLOCKTIME")
# libgomp's default is 300000. With 1000, two runs side by side are 2.6 times as fast, and a tiny model that has the
# machine for itself is a quarter slower (docs/performance.md).
SPINS = 1000


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets a thread of OpenMP that waits sleep soon, unless the user's environment decides that.

    libgomp reads the variable when torch is loaded, so this must come before. Child processes inherit it.
    """
    if not any(name in environment for name in DECIDED_BY):
        environment[SPIN_COUNT] = str(SPINS)


def share_cores(world: World) -> None:
    """Gives this process its share of the node's cores, unless the user or the launcher has: threads that outnumber
    cores wait for each other, and make a step many times as long."""
    import torch

    if world.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cores(world) // world.local_size))


def cores(world: World) -> int:
    """Processor cores of this node that the run may use; Slurm binds each of its tasks to some of its own."""
    own = len(os.sched_getaffinity(0))
    is_bound = world.launcher == "slurm" and own < (os.cpu_count() or 1)
    return own * world.local_size if is_bound else own
