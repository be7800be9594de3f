"""The recipe: what the user wrote, checked. Every value is traceable to file, line and column."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from convrun.contracts import KINDS
from convrun.contracts.data import DataSettings
from convrun.contracts.model import ModelSettings
from convrun.contracts.optimizer import OptimizerSettings
from convrun.contracts.scheduler import SchedulerSettings
from convrun.keys import keys_of_section, section_of, values_of
from convrun.recipe.problems import Path as KeyPath
from convrun.recipe.problems import Place
from convrun.recipe.sections import (
    ORDER,
    PLAIN_SECTIONS,
    Checkpoints,
    Distributed,
    Ema,
    Evaluation,
    Expect,
    Init,
    Logging,
    Training,
)
from convrun.recipe.substitution import with_references
from convrun.recipe.tree import Node
from convrun.registry import Component, registry

S_co = TypeVar("S_co", covariant=True)


@dataclasses.dataclass(frozen=True)
class Choice(Generic[S_co]):
    """A component that a recipe names, with the values of all its keys. `S_co` is the dataclass of its kind's keys.

    Attributes:
        values: of the component's own keys and of those its kind adds.
        shown: what is written in place of the values of some keys: `${env:NAME}` for secrets.
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

    @functools.cached_property
    def settings(self) -> S_co:
        """The keys that every section of this kind takes (DataSettings, ...); None where the kind has none."""
        section = KINDS[self.kind].settings
        if section is None:
            return cast("S_co", None)
        return cast("S_co", section_of(section, {key.name: self.values[key.name] for key in keys_of_section(section)}))

    def own_values(self) -> dict[str, Any]:
        """The values of the component's own keys, without those its kind adds."""
        own = {key.name for key in self.component.own_keys}
        return {name: value for name, value in self.values.items() if name in own}

    def create(self, *arguments: Any) -> Any:
        """Builds the component from the positional arguments of its kind's contract and the recipe's values."""
        return self.component.create(*arguments, **self.values)

    def as_written(self) -> dict[str, Any]:
        """As a recipe would write it, every key spelled out."""
        return {"name": self.name, **{name: plain(value) for name, value in self.values.items()}, **self.shown}

    def text(self) -> str:
        """`name(key=value, ...)` on one line."""
        own = self.own_values()
        inside = ", ".join(f"{name}={_short(self.shown.get(name, value))}" for name, value in own.items())
        return f"{self.name}({inside})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sections:
    """The sections that define a run, as in its recipe, with defaults filled in. None: the section is off.

    The Recipe adds what does not affect the numbers of the run, the Plan adds what is derived.
    """

    name: str
    seed: int
    input_size: int
    model: Choice[ModelSettings]
    init: Init | None
    data: Choice[DataSettings]
    augmentations: tuple[Choice[None], ...]
    loss: Choice[None]
    optimizer: Choice[OptimizerSettings]
    scheduler: Choice[SchedulerSettings]
    training: Training
    distributed: Distributed
    ema: Ema | None
    evaluation: Evaluation | None
    logging: Logging
    loggers: tuple[Choice[None], ...]
    checkpoints: Checkpoints
    callbacks: tuple[Choice[None], ...]

    def sections(self) -> dict[str, Any]:
        """All sections by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(Sections)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Sections):
    """A checked recipe. What is derived from it for a machine is a `convrun.plan.Plan`."""

    summary: str
    notes: str
    plugins: tuple[str, ...]
    launcher: Choice[None]
    expect: Expect | None
    source: Path
    tree: Node = dataclasses.field(repr=False, compare=False)

    def place(self, path: Sequence[str | int]) -> Place | None:
        """Where the value at a path was written, or the nearest map around it; None for a default."""
        node = self.tree.at(tuple(path))
        return (node.key_place or node.place) if node else None

    def nearest_place(self, path: Sequence[str | int]) -> Place | None:
        """Where the value at a path was written; for a default, where the section around it was."""
        steps = tuple(path)
        while steps and self.tree.at(steps) is None:
            steps = steps[:-1]
        return self.place(steps)

    def is_overridden(self) -> bool:
        """Whether the command line changed anything except where the data are, how they are loaded, and the logs."""

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
        """The whole recipe as plain data with all defaults: it can be run by itself, even if defaults change later.

        Secrets from the environment stay references, so they must be set again.
        """
        everything = {f.name: _as_written(getattr(self, f.name)) for f in dataclasses.fields(self)}
        everything["logging"]["to"] = everything.pop("loggers")
        if self.evaluation is None:
            del everything["checkpoints"]["keep"]["best"]  # a key without effect is an error
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


def _as_written(value: Any) -> Any:
    if isinstance(value, Choice):
        return value.as_written()
    if isinstance(value, tuple):
        return [_as_written(item) for item in value]
    return values_of(value) if type(value) in PLAIN_SECTIONS.values() else value


def plain(value: Any) -> Any:
    """A value as a YAML file holds it: tuples as lists, sections as maps, pydantic's types as they were written."""
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
