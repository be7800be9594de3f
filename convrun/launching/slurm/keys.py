"""The keys of launcher/slurm together: which contradict each other, and what follows from them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from convrun.errors import KeyProblem

# Options of sbatch that convrun sets, or needs unset -> the key that sets the option, if there is one.
_OURS = {
    "nodes": "nodes", "ntasks": "tasks_per_node", "ntasks-per-node": "tasks_per_node",
    "gpus-per-node": "gpus_per_node", "gpus-per-task": "gpus_per_node", "cpus-per-task": "cpus_per_task",
    "mem": "mem", "time": "time", "signal": "signal_seconds", "partition": "partition", "account": "account",
    "qos": "qos", "constraint": "constraint", "reservation": "reservation", "nodelist": "nodelist",
    "exclude": "exclude", "gres": "gres", "exclusive": "exclusive", "dependency": "dependency", "comment": "comment",
    "mail-type": "mail_type", "mail-user": "mail_user", "array": "", "output": "", "error": "", "open-mode": "",
    "requeue": "max_requeues", "no-requeue": "max_requeues", "job-name": "", "chdir": "",
    # With these sbatch submits nothing, does not print the job's id, or does not return.
    "test-only": "", "quiet": "", "parsable": "", "wait": "", "wrap": "", "help": "", "usage": "", "version": "",
}  # fmt: skip
_TIME = re.compile(r"(?:(?P<days>\d+)-(?P<h>\d+)(?::(?P<m>\d+)(?::(?P<s>\d+))?)?)|(?P<short>\d+(?::\d+){0,2})")


@dataclasses.dataclass(frozen=True)
class SlurmKeys:
    """The values of the keys; `convrun describe launcher/slurm` says what each means."""

    nodes: int
    gpus_per_node: int | None
    tasks_per_node: int | None
    cpus_per_task: int | None
    mem: int | str | None
    time: int | str | None
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    reservation: str | None
    nodelist: str | None
    exclude: str | None
    gres: str | None
    exclusive: bool
    dependency: str | None
    comment: str | None
    mail_type: str | None
    mail_user: str | None
    signal_seconds: int
    max_requeues: int
    array_parallel: int | None
    setup: tuple[str, ...]
    srun_args: tuple[str, ...]
    sbatch: tuple[str, ...]
    image: str | None
    mounts: tuple[str, ...]
    python: str | None
    check_folder: bool

    @classmethod
    def names(cls) -> set[str]:
        """The names of the keys."""
        return {field.name for field in dataclasses.fields(cls)}

    @property
    def tasks(self) -> int:
        """Tasks of each node: one a GPU."""
        return self.tasks_per_node or self.gpus_per_node or 1


def check(keys: Mapping[str, Any]) -> None:
    """Raises KeyProblem for the first key that contradicts another, or that Slurm cannot read."""
    gpus, tasks = keys["gpus_per_node"], keys["tasks_per_node"]
    if gpus is not None and tasks is not None and gpus != tasks:
        raise KeyProblem("tasks_per_node", f"is {tasks}, but one task a GPU makes {gpus}", "leave it out")
    if keys["mounts"] and keys["image"] is None:
        raise KeyProblem("mounts", "has no effect without an image", "name one with image, or leave mounts out")
    seconds = seconds_of(keys["time"])
    if seconds is not None and keys["signal_seconds"] >= seconds:
        message = f"is {keys['signal_seconds']} s, and the time limit is {seconds} s: the run would never train"
        raise KeyProblem("signal_seconds", message, "lower it, or raise time")
    options_of(keys["sbatch"])


def seconds_of(time: int | str | None) -> int | None:
    """Seconds of a time limit as Slurm writes it; None: no limit.

    Raises:
        KeyProblem: Slurm cannot read it.
    """
    if time is None or str(time).upper() in ("UNLIMITED", "INFINITE"):
        return None
    match = _TIME.fullmatch(str(time))
    if match is None:
        forms = "minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes[:seconds]"
        raise KeyProblem("time", f"{str(time)!r} is not a time that Slurm reads", f"it takes {forms}")
    if match["days"] is not None:
        days, hours, minutes, seconds = (int(match[name] or 0) for name in ("days", "h", "m", "s"))
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    parts = [int(part) for part in match["short"].split(":")]
    if len(parts) == 1:
        return parts[0] * 60
    return parts[0] * 60 + parts[1] if len(parts) == 2 else (parts[0] * 60 + parts[1]) * 60 + parts[2]


def options_of(lines: tuple[str, ...]) -> dict[str, str | bool]:
    """Option -> value (True: none) of the lines of the key `sbatch`: `#SBATCH --a=b`, `--a=b` or `a=b`.

    Raises:
        KeyProblem: a line that is not an option, an option given twice, or one that convrun sets itself.
    """
    found: dict[str, str | bool] = {}
    for line in lines:
        match = re.fullmatch(r"(?:#SBATCH\s+)?(?:--)?([A-Za-z][A-Za-z0-9-]+)(?:=(.*))?", line.strip())
        if match is None:
            raise KeyProblem("sbatch", f"{line!r} is not a long option of sbatch", "write it as --option=value")
        name, value = match[1], match[2]
        if name in _OURS:
            if not _OURS[name]:
                raise KeyProblem("sbatch", f"--{name} conflicts with what convrun sets", "leave it out")
            raise KeyProblem("sbatch", f"convrun sets --{name} itself", f"set the key {_OURS[name]}")
        if name in found:
            raise KeyProblem("sbatch", f"--{name} is given twice", "give it once")
        found[name] = True if value is None else value
    return found
