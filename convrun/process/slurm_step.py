"""What srun tells each task of a step. A batch script, or salloc's shell, is not a step: convrun is alone there."""

from __future__ import annotations

import re
import socket
import zlib
from collections.abc import Mapping

# Below the ports that Linux gives to outgoing connections (32768 and up), above the well-known ones.
FIRST_PORT, PORTS = 12000, 20000


def is_step(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process as one of a step's tasks.

    sbatch sets SLURM_NTASKS and SLURM_PROCID for the batch script too, but no step's number.
    """
    return "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment and bool(size_variable(environment))


def size_variable(environment: Mapping[str, str]) -> str:
    """The variable that holds the number of the step's tasks; the job may have more."""
    return next((n for n in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS") if n in environment), "")


def local_size(environment: Mapping[str, str]) -> int | None:
    """Tasks of the step on this node, from `2(x3),1` (two on each of three nodes, then one)."""
    text = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE", "")
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    node = environment.get("SLURM_NODEID", "0")
    return counts[int(node)] if node.isdigit() and int(node) < len(counts) else None


def first_host(hosts: str) -> str:
    """The first of a host list such as `gpu[07-12,31],login1`: gpu07."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", hosts)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0].strip()) if first else ""


def port(environment: Mapping[str, str]) -> int:
    """A port that all tasks of the step derive alike, and that differs after a requeue and between steps."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return FIRST_PORT + zlib.crc32("/".join(environment.get(name, "") for name in names).encode()) % PORTS


def host(environment: Mapping[str, str]) -> str:
    """This node by the name Slurm has for it."""
    return environment.get("SLURMD_NODENAME") or socket.gethostname()
