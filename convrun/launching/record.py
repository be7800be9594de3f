"""launch.json: by whom a run folder's run was launched, as what, and how to ask about it."""

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
CANCELLED = "cancelled"  # a file in logs/: the user wanted the run to end, so nobody puts it back into a queue


@dataclasses.dataclass(frozen=True)
class Launch:
    """What launch.json says.

    Attributes:
        nonce: differs at each launch.
        launcher: name and keys of the launcher, as a recipe writes them.
        info: what the launcher needs to find the job again; empty until it is sent.
        sweep: the folder's name of the sweep it belongs to, or empty; `values` is what the sweep set for this run.
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
        """Writes it into a run folder, whole or not at all."""
        text = json.dumps(masked(dataclasses.asdict(self)), indent=2, ensure_ascii=False)
        write_whole(folder / NAME, f"{text}\n".encode())

    def maker(self) -> Launcher:
        """The launcher, made anew.

        Raises:
            ConvrunError: it cannot be: a plugin that is not here, keys that another version wrote.
        """
        from convrun.keys.key_sets import KeyFaults
        from convrun.plugins import load_plugins

        values = {key: value for key, value in self.launcher.items() if key != "name"}
        name = str(self.launcher.get("name"))
        load_plugins(self.plugins)
        component = registry.find("launcher", name)
        try:
            made: Launcher = component.create(**component.keys.check(values))
        except KeyFaults as error:
            raise ConvrunError(f"launcher/{name} does not take what launch.json says of it: {error}") from None
        return made


def read_launch(folder: Path) -> Launch | None:
    """What a run folder says of its launch; None if it was not launched, or the file makes no sense."""
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
