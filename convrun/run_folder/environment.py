"""environment.json: the versions, device and command of each start of a run, and what differs between starts."""

from __future__ import annotations

import datetime
import platform
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from convrun.run_folder import RunFolder

PACKAGES = ("convrun", "torch", "torchvision", "timm", "numpy", "pillow")


def add_start(folder: RunFolder, device: str, allowed_changes: list[tuple[str, Any, Any]], step: int) -> str:
    """Adds this start to environment.json: versions, device, commit, command line, allowed changes.

    Returns:
        A line for the user if versions differ from those of the previous start, else an empty text. Since each start
        is compared with the previous one, a difference is reported once.
    """
    earlier = _starts(folder.read_json("environment.json"))
    start = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "from_step": step,
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "host": socket.gethostname(),
        "device": device,
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "allowed_changes": [{"key": key, "before": old, "after": new} for key, old, new in allowed_changes],
    }
    folder.write_json("environment.json", {"starts": [*earlier, start]})
    return version_changes(earlier[-1], start) if earlier and step else ""


def allowed_before(folder: RunFolder) -> list[str] | None:
    """The recipe keys whose change was allowed at the starts so far; None if the file does not tell."""
    content = folder.read_json("environment.json")
    try:
        keys = [change["key"] for start in content["starts"] for change in start["allowed_changes"]]  # type: ignore[index]
    except (TypeError, KeyError):  # no file, or one that was damaged or edited
        return None
    return keys if all(isinstance(key, str) for key in keys) else None


def version_changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """`versions differ from the previous start: torch 2.11.0 → 2.12.0; ...`; empty if they are the same."""
    old, new = ({"python": start.get("python"), **_map(start.get("versions"))} for start in (before, now))
    changes = [f"{name} {old[name]} → {new[name]}" for name in new if old.get(name) not in (None, new[name])]
    if not changes:
        return ""
    return (
        f"versions differ from the previous start: {', '.join(changes)}; from here on numbers may differ in their last "
        "digits"
    )


def _starts(content: Any) -> list[dict[str, Any]]:
    starts = _map(content).get("starts")
    return [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []


def _map(value: Any) -> dict[str, Any]:
    """The value if it is a map, else an empty one: a damaged or edited file must not end a run."""
    return value if isinstance(value, dict) else {}


def _version(package: str) -> str | None:
    loaded = getattr(sys.modules.get(package), "__version__", None)
    if loaded is not None:  # torch's own says which CUDA it was built for
        return str(loaded)
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the working folder, with `+` if files differ from it, `?` if git cannot tell within 10 seconds."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    changes = _git("status", "--porcelain")
    return commit + ("?" if changes is None else "+" if changes else "")


def _git(*words: str) -> str | None:
    """What git says; None if it fails. It writes nothing, and runs neither hooks nor the repository's monitor."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: file names that are not UTF-8
        return None
