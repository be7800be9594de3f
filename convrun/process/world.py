"""This process's rank and world size, from the environment variables of its launcher. No torch."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Mapping
from typing import Literal

from convrun.errors import UsageError
from convrun.process import slurm_step as slurm

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Set by the process that starts the others on one machine (convrun.distributed.meeting.children).
BOARD_VARIABLE, PARENT_VARIABLE = "CONVRUN_BOARD", "CONVRUN_PARENT"

Launcher = Literal["alone", "convrun", "torchrun", "slurm"]


@dataclasses.dataclass(frozen=True)
class World:
    """One process of a run, and where the others are.

    Attributes:
        rank: this process, from 0, over all nodes.
        size: processes in all.
        local_rank: this process among those of its node; the number of its device.
        local_size: processes on this node.
        host: this node's name.
        master: the host that rank 0 runs on, where all processes meet.
        port: the TCP port there.
        launcher: what started the processes; `alone`: this is the only one.
        attempt: differs between restarts, which may use the same address.
        is_store_given: the launcher serves the meeting point itself (torchrun); otherwise rank 0 does.
        board: the folder where processes started by convrun write their failures.
        parent: the process that started them; they end when it does.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    host: str = dataclasses.field(default_factory=socket.gethostname)
    master: str = "127.0.0.1"
    port: int = 0
    launcher: Launcher = "alone"
    attempt: str = "0"
    is_store_given: bool = False
    board: str | None = None
    parent: int | None = None

    @property
    def nodes(self) -> int:
        """Nodes, if each has as many processes as this one."""
        return max(1, self.size // self.local_size)

    @property
    def serves_store(self) -> bool:
        """Whether this process serves the store where all meet."""
        return self.rank == 0 and not self.is_store_given

    @property
    def speaks_for_its_node(self) -> bool:
        """Whether it reports for its node when no store can choose a process: one a node, but not rank 0."""
        is_first_node = self.rank == self.local_rank
        return self.local_rank == (1 if is_first_node and self.local_size > 1 else 0)

    @property
    def name(self) -> str:
        """`rank 2 on node1`."""
        return f"rank {self.rank} on {self.host}"


def world_of(environment: Mapping[str, str]) -> World:
    """This process's place: torchrun's variables have precedence, then those of a Slurm step; else it is alone.

    Raises:
        UsageError: some of the variables are missing, or contradict each other.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        return _of_torchrun(environment)
    if slurm.is_step(environment):
        return _of_slurm(environment)
    return World()


def _of_torchrun(environment: Mapping[str, str]) -> World:
    missing = [name for name in TORCHRUN if not environment.get(name)]
    if missing:
        found = [name for name in TORCHRUN if name in environment]
        raise UsageError(
            f"{' and '.join(found)} {'is' if len(found) == 1 else 'are'} set as by torchrun, but not "
            f"{', '.join(missing)}; start with torchrun, or unset {' '.join(found)}"
        )
    board = environment.get(BOARD_VARIABLE)
    local_rank = _number(environment, "LOCAL_RANK")
    world = World(
        rank=_number(environment, "RANK"),
        size=_number(environment, "WORLD_SIZE"),
        local_rank=local_rank,
        local_size=_number(environment, "LOCAL_WORLD_SIZE", local_rank + 1),
        master=environment["MASTER_ADDR"],
        port=_number(environment, "MASTER_PORT"),
        launcher="convrun" if board else "torchrun",
        attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
        is_store_given=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        board=board,
        parent=_number(environment, PARENT_VARIABLE) if board else None,
    )
    return _checked(world, "RANK, WORLD_SIZE and LOCAL_RANK")


def _of_slurm(environment: Mapping[str, str]) -> World:
    size = _number(environment, slurm.size_variable(environment))
    if size == 1:
        return World(host=slurm.host(environment))
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    master = environment.get("MASTER_ADDR") or slurm.first_host(nodes)
    if not master:
        raise UsageError("SLURM_STEP_NODELIST and SLURM_JOB_NODELIST are empty; start with srun, or set MASTER_ADDR")
    port = _number(environment, "MASTER_PORT", slurm.port(environment))
    rank, local_rank = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_LOCALID")
    world = World(
        rank=rank,
        size=size,
        local_rank=local_rank,
        local_size=slurm.local_size(environment) or local_rank + 1,
        host=slurm.host(environment),
        master=master,
        port=port,
        launcher="slurm",
        attempt=environment.get("SLURM_RESTART_COUNT", "0"),
    )
    return _checked(world, "SLURM_PROCID and the number of tasks")


def _checked(world: World, variables: str) -> World:
    if not (0 <= world.rank < world.size and 0 <= world.local_rank < world.local_size <= world.size):
        raise UsageError(
            f"{variables} say rank {world.rank} of {world.size} (local rank {world.local_rank} of "
            f"{world.local_size}), which is impossible; start with convrun run, torchrun or srun, and set none of them"
        )
    return world


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise UsageError(f"{name} is {text!r}, not a number; its launcher sets it, so do not set it yourself") from None
