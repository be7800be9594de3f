"""Can every node see a folder? One node can often tell that the answer is no, and seldom that it is yes."""

from __future__ import annotations

import os
from pathlib import Path

# Folders that each machine has for itself, by convention.
_LOCAL_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/var/run", "/local", "/localscratch", "/mnt/local")
_IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs", "rootfs"}
_OF_ONE_MACHINE = {"overlay", "aufs", "squashfs", "fuse.overlayfs"}
_DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "reiserfs", "vfat", "ntfs"}


def why_local(folder: Path) -> str:
    """Why other nodes cannot see the folder; empty if they may."""
    place = Path(os.path.realpath(folder))
    for local in _LOCAL_FOLDERS:
        if place.is_relative_to(local) or folder.is_relative_to(local):
            return f"each machine has its own {local}"
    kind = file_system_of(place)
    if kind in _IN_MEMORY:
        return f"it is in this machine's memory ({kind})"
    return f"it is inside a container of this machine ({kind})" if kind in _OF_ONE_MACHINE else ""


def doubt(folder: Path) -> str:
    """Why other nodes probably cannot see the folder; empty if they probably can."""
    kind = file_system_of(Path(os.path.realpath(folder)))
    if kind in _DISKS:
        return f"{folder} is on a disk of this machine ({kind}): other nodes see it only if it is exported to them"
    return ""


def file_system_of(place: Path) -> str:
    """The type of the file system that holds a path (`nfs4`, `ext4`, ...); empty where the kernel does not say."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = before.split()[4].encode().decode("unicode_escape")  # a space in it is written \040
        if place.is_relative_to(mount) and len(mount) >= best:
            best, kind = len(mount), after.split()[0]
    return kind
