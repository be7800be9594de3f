"""The network interface through which this host reaches the others.

Left alone, gloo takes the address that this host's own name stands for. On Debian and Ubuntu that is often 127.0.1.1
(/etc/hosts), where no other host finds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, MutableMapping

GLOO_VARIABLE = "GLOO_SOCKET_IFNAME"
SIOCGIFADDR = 0x8915  # Linux's request for an interface's IPv4 address


def addresses_towards(host: str, port: int) -> tuple[str, str]:
    """The IPv4 address that packets to another host leave from, and that host's own; empty if there is no way."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))  # sends nothing
        return probe.getsockname()[0], probe.getpeername()[0]
    return "", ""


def address_among(own: str, of_master: Iterable[str]) -> str:
    """The address under which other hosts find this one; empty if all processes are on one host.

    Args:
        own: this host's address towards the master; a loopback address on the master itself.
        of_master: the master's address as each process has it.
    """
    if own and not _is_loopback(own):
        return own
    return next((address for address in of_master if address and not _is_loopback(address)), "")


def use_interface_of(address: str, environment: MutableMapping[str, str] | None = None) -> None:
    """Lets gloo speak through the interface with this address, unless the user has named one."""
    environment = os.environ if environment is None else environment
    name = interface_of(address)
    if name is not None:
        environment.setdefault(GLOO_VARIABLE, name)


def interface_of(address: str) -> str | None:
    """The interface whose first IPv4 address this is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has no IPv4 address
                answer = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None


def _is_loopback(address: str) -> bool:
    return address.startswith("127.")
