"""Where the processes of `convrun run` come from: a launcher started them, convrun starts them, or one is enough."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Literal

from convrun.distributed.failing.failure import DevicesGiven
from convrun.distributed.group import Group
from convrun.distributed.meeting.children import Children
from convrun.errors import UsageError
from convrun.process.signals import StopRequest
from convrun.process.world import World, world_of

Device = Literal["auto", "cpu", "cuda"]


def in_each_process(
    job: Callable[[Group], None],
    stop: StopRequest,
    *,
    devices: int | None = None,
    device: Device = "auto",
    check: Callable[[int], object] | None = None,
) -> None:
    """Does a job in every process of the run, and returns when all have ended.

    Args:
        job: what one process does; it is given its group.
        stop: listens for signals already.
        devices: processes to start on this machine; None: one for each GPU that is visible, else one.
        device: what they train on.
        check: called with their number before any is started here; an error it raises is the user's.

    Raises:
        UsageError: `devices` is given, but a launcher has started the processes.
        ConvrunError: what ended the run, once, whichever process it was.
        StopNow: a signal has come before any process was started.
    """
    world, debug = world_of(os.environ), "--debug" in sys.argv
    if world.launcher in ("torchrun", "slurm") and devices is not None:
        raise DevicesGiven(world)
    if world.size > 1:
        _as_rank(world, job, stop, device, debug)
    elif (count := devices or _visible_devices(device)) > 1:
        if check is not None:
            check(count)
        stop.check()
        Children(count, debug=debug).run()
    else:
        job(Group(world))


def _as_rank(world: World, job: Callable[[Group], None], stop: StopRequest, device: Device, debug: bool) -> None:
    from convrun.distributed.meeting.rank import Rank
    from convrun.process.device import choose_device

    Rank(world, lambda: choose_device(device, world), stop, debug).run(job)


def _visible_devices(device: Device) -> int:
    """Processes to start where the user does not say: one a GPU; on the CPU one uses all cores."""
    if device == "cpu":
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def checked_devices(text: str) -> int | None:
    """What `--devices` says: a number, or None for `auto`.

    Raises:
        UsageError: neither.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--devices {text}: give a number from 1 on, or auto (one process for each visible GPU)")
    return int(text)
