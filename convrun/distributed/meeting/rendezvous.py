"""How the processes of a run meet: one TCP store, and a name from each, or a message that says who is missing."""

from __future__ import annotations

import datetime
import json
import socket
import time
from dataclasses import dataclass

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed import DistError

from convrun import __version__
from convrun.distributed.meeting.interfaces import address_among, addresses_towards
from convrun.errors import ConvrunError
from convrun.process.world import World

# From the first process that is there to the last: imports from a busy network disk take their time.
MEETING_SECONDS = 120.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Meeting:
    """Where the processes have met.

    Attributes:
        world: this process's place.
        store: for keys that all see; serves one thread at a time.
        hosts: the node of each rank.
        address: the IPv4 address under which other hosts find this one; empty if there are none.
    """

    world: World
    store: Store
    hosts: tuple[str, ...]
    address: str = ""


def meet(world: World, store: Store, device: str, identity: str = "", seconds: float | None = None) -> Meeting:
    """Waits until all processes of the run are there.

    Args:
        world: this process's place.
        store: this process's connection to the meeting point.
        device: `cuda` or `cpu`; all must have the same.
        identity: tells the process's GPU from all others.
        seconds: how long to wait for the last; MEETING_SECONDS.

    Raises:
        ConvrunError: processes are missing (named), or they have other devices or another version of convrun than this
            one, or one has left word of a failure.
    """
    own, of_master = addresses_towards(world.master, world.port)
    mine = {"host": world.host, "device": device, "version": __version__, "identity": identity, "master": of_master}
    store.set(f"here/{world.rank}", json.dumps(mine))
    _wait_for_all(world, store, MEETING_SECONDS if seconds is None else seconds)
    theirs = [json.loads(text) for text in store.multi_get([f"here/{rank}" for rank in range(world.size)])]
    _check_alike(world, mine, theirs)
    address = address_among(own, [other["master"] for other in theirs])
    return Meeting(world, store, tuple(other["host"] for other in theirs), address)


def connect(world: World, seconds: float = MEETING_SECONDS) -> Store:
    """A connection to the meeting point, which rank 0 serves unless the launcher does.

    Each thread needs one of its own (`another_connection`): one that waits holds the connection.

    Raises:
        ConvrunError: it cannot be served, or not be reached in time.
    """
    # torchrun keeps its store when it starts the processes again: the keys of each attempt are its own.
    return PrefixStore(f"convrun/{world.attempt}", _server(world, seconds))


def another_connection(store: Store) -> Store:
    """The same keys, for another thread."""
    return store.clone()


def _server(world: World, seconds: float) -> TCPStore:
    place = f"{world.master}, port {world.port}"
    try:
        socket.getaddrinfo(world.master, world.port)  # torch would ask again and again for minutes
    except OSError as error:
        raise ConvrunError(
            f"the processes are to meet on {world.master}, but {world.host} knows no host of that name "
            f"({error.strerror}); give its address in MASTER_ADDR"
        ) from error
    timeout = datetime.timedelta(seconds=seconds)
    if not world.serves_store:
        _wait_until_it_listens(world, seconds)
    try:
        return TCPStore(world.master, world.port, None, world.serves_store, timeout, wait_for_workers=False)
    except DistError as error:
        reason = str(error).splitlines()[0]
        if not world.serves_store:
            raise _not_there(world, seconds, reason) from error
        raise ConvrunError(
            f"rank 0 cannot serve the meeting point at {place} ({reason}); give a free port in MASTER_PORT"
        ) from error


def _wait_until_it_listens(world: World, seconds: float) -> None:
    """Returns once the port can be reached; unlike torch's own wait, a signal ends this one at once."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((world.master, world.port), timeout=5.0).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise _not_there(world, seconds, error.strerror or str(error)) from error
        time.sleep(POLL_SECONDS)


def _not_there(world: World, seconds: float, reason: str) -> ConvrunError:
    return ConvrunError(
        f"rank 0 was not at {world.master}, port {world.port}, within {seconds:g} s ({reason}); look at its output, "
        f"and whether {world.host} reaches that port"
    )


def _wait_for_all(world: World, store: Store, seconds: float) -> None:
    waited_for, end = 0, time.monotonic() + seconds
    while waited_for < world.size:
        if store.check(["failure"]):
            raise ConvrunError("another process failed before all had met")
        if store.check([f"here/{waited_for}"]):
            waited_for += 1
        elif time.monotonic() > end:
            missing = [rank for rank in range(waited_for, world.size) if not store.check([f"here/{rank}"])]
            raise ConvrunError(
                f"{ranks_text(missing)} of {world.size} did not come to {world.master}, port {world.port}, within "
                f"{seconds:g} s; look at what the launcher says of them, and whether their hosts reach that port"
            )
        else:
            time.sleep(POLL_SECONDS)


def _check_alike(world: World, mine: dict[str, str], theirs: list[dict[str, str]]) -> None:
    for rank, other in enumerate(theirs):
        for what, text in (("device", "trains on"), ("version", "has convrun")):
            if other[what] != mine[what]:
                raise ConvrunError(
                    f"{world.name} {text} {mine[what]}, but rank {rank} on {other['host']} {text} {other[what]}; all "
                    "processes of a run need the same"
                )
        is_same = other["identity"] == mine["identity"] and other["host"] == mine["host"]
        if mine["identity"] and is_same and rank != world.rank:
            raise ConvrunError(
                f"{world.name} and rank {rank} have the same GPU; start as many processes as there are GPUs, and let "
                "each see all of them, or one of its own"
            )


def ranks_text(ranks: list[int]) -> str:
    """`rank 3`, `ranks 3, 5 to 7 and 12`."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    parts = [f"{a}" if a == b else f"{a} and {b}" if b == a + 1 else f"{a} to {b}" for a, b in runs]
    text = ", ".join(parts[:-1]) + " and " * (len(parts) > 1) + parts[-1]
    return f"rank{'s' if len(ranks) > 1 else ''} {text}"
