"""launch.json: which launcher started the run of a run folder, as which job, and how to ask about it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convrun.contracts.launcher import Launcher
from convrun.errors import ConvrunError
from convrun.registry import registry
from convrun.run_folder import write_whole
from convrun.text.secrets import masked

NAME = "launch.json"
CANCELLED = "cancelled"  # a file in logs/: the user cancelled the run, so it is not requeued


@dataclasses.dataclass(frozen=True)
class Launch:
    """What launch.json says.

    Attributes:
        nonce: differs at each launch.
        launcher: name and keys of the launcher, as a recipe writes them.
        info: what the launcher needs to find the job again; empty until the job is submitted.
        sweep: the name of its sweep's folder, or empty; `values` is what the sweep set for this run.
    """

    nonce: str
    name: str
    launcher: Mapping[str, Any]
    working_folder: str
    command: tuple[str, ...]
    host: str
    time: str
    plugins: tuple[str, ...] = ()
    sweep: str = ""
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes launch.json into a run folder, atomically."""
        text = json.dumps(masked(dataclasses.asdict(self)), indent=2, ensure_ascii=False)
        write_whole(folder / NAME, f"{text}\n".encode())

    def maker(self) -> Launcher:
        """The launcher, built from the keys in launch.json.

        Raises:
            ConvrunError: its plugin is missing, or another version wrote the keys.
        """
        from convrun.keys.key_sets import InvalidKeys
        from convrun.plugins import load_plugins

        values = {key: value for key, value in self.launcher.items() if key != "name"}
        name = str(self.launcher.get("name"))
        load_plugins(self.plugins)
        component = registry.find("launcher", name)
        try:
            made: Launcher = component.create(**component.keys.check(values))
        except InvalidKeys as error:
            raise ConvrunError(f"launcher/{name} does not accept its keys in launch.json: {error}") from None
        return made


def read_launch(folder: Path) -> Launch | None:
    """A run folder's launch.json; None if the run was not launched, or the file cannot be read."""
    try:
        data = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return _launch(data) if isinstance(data, dict) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _launch(data: dict[str, Any]) -> Launch | None:
    """A Launch from JSON; None unless every field is there with its type."""
    texts = ("nonce", "name", "working_folder", "host", "time", "sweep")
    maps, lists = ("launcher", "values", "info"), ("command", "plugins")
    fits = (
        all(isinstance(data.get(name), str) for name in texts)
        and all(isinstance(data.get(name), dict) for name in maps)
        and all(isinstance(data.get(name), list) and all(isinstance(x, str) for x in data[name]) for name in lists)
    )
    if not fits:
        return None
    values: dict[str, Any] = {name: data[name] for name in (*texts, *maps)}
    values |= {name: tuple(data[name]) for name in lists}
    return Launch(**values)
