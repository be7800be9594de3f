"""Which process on which machine: so that another one, or a later one, can tell whether it is still there."""

from __future__ import annotations

import dataclasses
import functools
import os
import socket
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """A process, told from every other one of any time and machine.

    Attributes:
        host: the machine's name; containers and clusters have several of one name.
        boot: the kernel's id of this boot; empty where the system has none.
        namespace: the PID namespace: the same number means another process in another container.
        started: when the process started, in the kernel's ticks since boot; numbers of processes are used again.
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
        """Whether both number their processes alike, so that one can look for the other."""
        return (self.host, self.boot, self.namespace) == (other.host, other.boot, other.namespace)

    def is_running(self) -> bool:
        """Whether the process is there still; asked on its own machine."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it runs, and is somebody else's
        state, started = _state_and_start(self.pid)
        return state != "Z" and started in ("", self.started)


def this_process() -> ProcessIdentity:
    """The process that asks."""
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
    """A process's state and start (proc(5), /proc/pid/stat, fields 3 and 22); empty where nobody may look."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], fields[19]
