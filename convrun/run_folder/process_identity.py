"""Identifies a process and its machine, so that another or a later process can tell whether it is still running."""

from __future__ import annotations

import dataclasses
import functools
import os
import socket
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """A process, distinguished from every other one on any machine at any time.

    Attributes:
        host: the machine's name, which several containers or machines may share.
        boot: the kernel's id of this boot; empty where the system has none.
        namespace: the PID namespace: the same number means another process in another container.
        started: when the process started, in the kernel's ticks since boot, because process ids are reused.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @property
    def text(self) -> str:
        """`process 4711 on node17`."""
        host = "".join(c if c.isprintable() else "?" for c in str(self.host))
        return f"process {self.pid} on {host[:100]}"

    def is_on_the_machine_of(self, other: ProcessIdentity) -> bool:
        """Whether both are in one PID namespace, so that one can look the other up."""
        return (self.host, self.boot, self.namespace) == (other.host, other.boot, other.namespace)

    def is_running(self) -> bool:
        """Whether the process is still running; to be called on its own machine."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it is running, and belongs to another user
        state, started = _state_and_start(self.pid)
        return state != "Z" and started in ("", self.started)


def this_process() -> ProcessIdentity:
    """The process that calls this."""
    return ProcessIdentity(socket.gethostname(), _boot(), _namespace(), os.getpid(), _state_and_start(os.getpid())[1])


def process_numbered(pid: int) -> ProcessIdentity:
    """Another process of this machine; its start is empty if it is gone."""
    return dataclasses.replace(this_process(), pid=pid, started=_state_and_start(pid)[1])


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _state_and_start(pid: int) -> tuple[str, str]:
    """A process's state and start (proc(5), /proc/pid/stat, fields 3 and 22); empty if they cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], fields[19]
