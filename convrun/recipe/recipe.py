"""The recipe: what the user wrote, checked. Every value is traceable to file, line and column."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convrun.keys import values_of
from convrun.recipe.problems import Path as KeyPath
from convrun.recipe.problems import Place
from convrun.recipe.sections import ORDER, Checkpoints, Distributed, Ema, Evaluation, Expect, Init, Logging, Training
from convrun.recipe.substitution import with_references
from convrun.recipe.tree import Node
from convrun.registry import Component, registry


@dataclasses.dataclass(frozen=True)
class Choice:
    """A component a recipe names, with the values of all its keys.

    Attributes:
        shown: what stands for the values of some keys wherever they are written: `${env:NAME}` for secrets.
    """

    kind: str
    name: str
    values: Mapping[str, Any]
    path: KeyPath
    shown: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def component(self) -> Component:
        """The registry's component of this name."""
        return registry.find(self.kind, self.name)

    def own_values(self) -> dict[str, Any]:
        """The values of the component's own keys, without those its kind adds."""
        own = {key.name for key in self.component.own_keys}
        return {name: value for name, value in self.values.items() if name in own}

    def create(self, *handed: Any) -> Any:
        """Build the component; `handed` is what its kind's contract says."""
        return self.component.create(*handed, **self.values)

    def as_written(self) -> dict[str, Any]:
        """As a recipe would write it, every key spelled out."""
        return {"name": self.name, **{name: plain(value) for name, value in self.values.items()}, **self.shown}

    def text(self) -> str:
        """`name(key=value, ...)` on one line."""
        own = self.own_values()
        inside = ", ".join(f"{name}={_short(self.shown.get(name, value))}" for name, value in own.items())
        return f"{self.name}({inside})"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A checked recipe. What is derived from it for a machine is a `convrun.plan.Plan`."""

    name: str
    summary: str
    notes: str
    seed: int
    input_size: int
    plugins: tuple[str, ...]
    model: Choice
    init: Init | None
    data: Choice
    augmentations: tuple[Choice, ...]
    loss: Choice
    optimizer: Choice
    scheduler: Choice
    training: Training
    distributed: Distributed
    ema: Ema | None
    evaluation: Evaluation | None
    logging: Logging
    loggers: tuple[Choice, ...]
    checkpoints: Checkpoints
    callbacks: tuple[Choice, ...]
    launcher: Choice
    expect: Expect | None
    source: Path
    tree: Node = dataclasses.field(repr=False, compare=False)

    def place(self, path: Sequence[str | int]) -> Place | None:
        """Where the value at a path was written, or the nearest map around it; None for a default."""
        node = self.tree.at(tuple(path))
        return (node.key_place or node.place) if node else None

    def nearest_place(self, path: Sequence[str | int]) -> Place | None:
        """Where the value at a path was written, else where what contains it was."""
        steps = tuple(path)
        while steps and self.tree.at(steps) is None:
            steps = steps[:-1]
        return self.place(steps)

    def is_overridden(self) -> bool:
        """Whether the command line changed anything but where the data and the logs are."""

        def changed(node: Node, path: KeyPath) -> bool:
            if path in (("data", "root"), ("data", "path"), ("data", "workers"), ("data", "prefetch"), ("logging",)):
                return False
            if isinstance(node.value, dict):
                return any(changed(item, (*path, key)) for key, item in node.value.items())
            if isinstance(node.value, list):
                return any(changed(item, (*path, i)) for i, item in enumerate(node.value))
            return node.place.source == "override"

        return changed(self.tree, ())

    def resolved(self) -> dict[str, Any]:
        """The whole recipe as plain data, defaults spelled out: it reruns alone, whatever the defaults become.

        Secrets of the environment are the references that were written, so they must be set again.
        """
        logging = {**values_of(self.logging), "to": [c.as_written() for c in self.loggers]}
        checkpoints = values_of(self.checkpoints)
        if self.evaluation is None:
            del checkpoints["keep"]["best"]  # written out, it would be a key without effect, which no recipe may hold
        everything = {
            "name": self.name,
            "summary": self.summary,
            "notes": self.notes,
            "seed": self.seed,
            "input_size": self.input_size,
            "plugins": list(self.plugins),
            "expect": values_of(self.expect) if self.expect else None,
            "init": values_of(self.init) if self.init else None,
            "training": values_of(self.training),
            "distributed": values_of(self.distributed),
            "ema": values_of(self.ema) if self.ema else None,
            "evaluation": values_of(self.evaluation) if self.evaluation else None,
            "logging": logging,
            "checkpoints": checkpoints,
            "augmentations": [c.as_written() for c in self.augmentations],
            "callbacks": [c.as_written() for c in self.callbacks],
        } | {
            section: getattr(self, section).as_written()
            for section in ("model", "data", "loss", "optimizer", "scheduler", "launcher")
        }
        return {
            key: with_references(plain(everything[key]), self.tree.value.get(key))
            for key in ORDER
            if everything[key] not in ("", [], None) or key in ("evaluation", "augmentations")
        }

    @functools.cached_property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that change with anything that can change the run's numbers."""
        import hashlib

        described = self.resolved()
        for key in ("name", "summary", "notes", "expect", "logging", "launcher"):
            described.pop(key, None)
        del described["training"]["stop_after"]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """A value as a YAML file has it: tuples as lists, sections as maps, pydantic's types as they were written."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if type(value) in (str, int, float, bool, type(None)):
        return value
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, fallback=str)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return str(value)
