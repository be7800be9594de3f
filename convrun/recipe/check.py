"""A tree of nodes -> a Recipe, with every problem found on the way, not only the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convrun.contracts import KINDS
from convrun.errors import ConvrunError, KeyProblem
from convrun.keys import Key, is_section, keys_of_section, section_of
from convrun.keys.key_sets import InvalidKey, InvalidKeys, KeySet, key_set_of
from convrun.keys.type_text import type_text
from convrun.recipe.consistency import inconsistencies
from convrun.recipe.inheritance import LIST_SECTIONS, SINGLE_SECTIONS
from convrun.recipe.problems import Path as KeyPath
from convrun.recipe.problems import Problem, RecipeError
from convrun.recipe.recipe import Choice, Recipe, plain
from convrun.recipe.sections import DEFAULT_COMPONENTS, DEFAULT_LISTS, PLAIN_SECTIONS, Header
from convrun.recipe.substitution import with_references
from convrun.recipe.suggestions import guessed_key
from convrun.recipe.tree import Node
from convrun.registry import registry
from convrun.text.secrets import masked
from convrun.text.wording import nearest

# These sections have settings that must be chosen.
REQUIRED = ("model", "data", "optimizer", "scheduler", "training")
# Left out, these sections are off; any other plain section takes its defaults.
OFF_BY_DEFAULT = ("expect", "init", "ema")
_DURATIONS = {"evaluation": ("every_epochs", "every_steps"), "checkpoints": ("every_epochs", "every_steps")}


def checked(tree: Node, source: Path) -> Recipe:
    """The recipe a tree stands for.

    Raises:
        RecipeError: with every problem of the tree.
    """
    checker = _Checker(tree)
    header = checker.plain((), Header, checker.top_level())
    plain = {name: checker.plain_section(name) for name in PLAIN_SECTIONS}
    single = {name: checker.component_section(name, kind) for name, kind in SINGLE_SECTIONS.items()}
    lists = {name: checker.component_list(name, kind) for name, kind in LIST_SECTIONS.items()}
    checker.raise_problems()
    assert header is not None
    values = {
        **vars(header),
        **plain,
        **single,
        "augmentations": lists["augmentations"],
        "loggers": lists["logging.to"],
        "callbacks": lists["callbacks"],
        "name": header.name or source.stem,
    }
    values.pop("extends")
    recipe = Recipe(**values, source=source, tree=tree)
    problems = [Problem(recipe.nearest_place(path), path, text, cure) for path, text, cure in inconsistencies(recipe)]
    if problems:
        raise RecipeError(sorted(problems, key=lambda problem: problem.position))
    return recipe


class _Checker:
    def __init__(self, tree: Node) -> None:
        self.tree = tree
        self.problems: list[Problem] = []

    def raise_problems(self) -> None:
        if self.problems:
            raise RecipeError(sorted(self.problems, key=lambda problem: problem.position))

    def report(self, path: KeyPath, message: str, cure: str = "", at_key: bool = False) -> None:
        node, steps = self.tree.at(path), path
        while node is None:
            steps = steps[:-1]
            node = self.tree.at(steps)
        place = (node.key_place or node.place) if at_key or steps != path else node.place
        if not steps:
            place = node.place
        self.problems.append(Problem(place, path, message, cure))

    def top_level(self) -> dict[str, Any]:
        """The header's values; sections apart. An unknown top-level key is reported here."""
        values: dict[str, Any] = {}
        sections = {*PLAIN_SECTIONS, *SINGLE_SECTIONS, "augmentations", "callbacks"}
        header = {key.name for key in keys_of_section(Header)}
        guesses = set()
        for key, node in self.tree.value.items():
            if key in header:
                values[key] = node.plain()
            elif key not in sections:
                guesses.add(self.unknown((key,), sections | header))
        for section in REQUIRED:
            # If `extends` is misspelt, the parent would have provided it.
            if section not in self.tree.value and not guesses & {section, "extends"}:
                self.report((section,), "is missing", "every recipe needs it")
        return values

    def unknown(self, path: KeyPath, names: set[str]) -> str | None:
        guess = guessed_key(path, names, self.tree)
        self.report(path, "unknown key", guess.cure, at_key=True)
        return guess.name

    def plain_section(self, name: str) -> Any:
        section, node = PLAIN_SECTIONS[name], self.tree.value.get(name)
        if node is None:
            if name in OFF_BY_DEFAULT or name in REQUIRED:
                return None
            return self.plain((name,), section, dict(_defaults(name, {})))
        if node.value is None and name in (*OFF_BY_DEFAULT, "evaluation"):
            return None
        if not isinstance(node.value, dict):
            self.report((name,), f"must be a map of keys, got {_shown(node.plain())}")
            return None
        values = node.plain()
        if name == "logging":
            values.pop("to", None)
        return self.plain((name,), section, _defaults(name, values))

    def plain(self, path: KeyPath, section: type[Any], values: dict[str, Any]) -> Any:
        extra = {"to"} if path == ("logging",) else set()
        checked_values = self.check_keys(path, key_set_of(section), values, extra)
        return section_of(section, checked_values) if checked_values is not None else None

    def check_keys(
        self, path: KeyPath, keys: KeySet, values: Mapping[str, Any], extra: set[str] | None = None
    ) -> dict[str, Any] | None:
        try:
            return keys.check(values)
        except InvalidKeys as error:
            guesses = {
                self.unknown((*path, *key.path), {*_keys_around(key.path, keys), *(extra or ())})
                for key in error.found
                if key.type == "extra_forbidden"
            }
            for key in error.found:
                if key.type == "missing":
                    if key.path[-1] not in guesses:
                        around = _keys_around(key.path, keys)
                        meaning = around[str(key.path[-1])].meaning if key.path[-1] in around else ""
                        self.report((*path, *key.path), "is missing", meaning)
                elif key.type in ("too_short", "too_long") and len(key.path) == 1:
                    wanted = type_text(keys.keys[str(key.path[0])].annotation).replace("list of", "a list of", 1)
                    self.report_value(path, dataclasses.replace(key, message=wanted), values)
                elif key.type != "extra_forbidden":
                    self.report_value(path, key, values)
        return None

    def report_value(self, path: KeyPath, key: InvalidKey, values: Any) -> None:
        for step in key.path:
            values = values[step]
        sentence = key.message if key.message[:1].isupper() else f"must be {key.message}"
        guess = nearest(values, _quoted(key.message)) if isinstance(values, str) else None
        cure = f"did you mean {guess}?" if guess else ""
        values = with_references(values, self.tree.at((*path, *key.path)))
        self.report((*path, *key.path), f"{sentence}, got {_shown(values)}", cure)

    def component_section(self, name: str, kind: str) -> Choice[Any] | None:
        node = self.tree.value.get(name)
        if node is None or node.value is None:
            if name in DEFAULT_COMPONENTS:
                return self.component((name,), kind, DEFAULT_COMPONENTS[name])
            if node is not None:
                self.report((name,), "is empty", _name_one(kind))
            return None
        if not isinstance(node.value, dict):
            self.report((name,), f"must be a name or a map with a name, got {_shown(node.plain())}")
            return None
        return self.component((name,), kind, {**DEFAULT_COMPONENTS.get(name, {}), **node.plain()})

    def component_list(self, section: str, kind: str) -> tuple[Choice[Any], ...]:
        path: KeyPath = tuple(section.split("."))
        node = self.tree.at(path)
        values = DEFAULT_LISTS[section] if node is None else node.plain()
        if values is None:
            values = []
        if not isinstance(values, list):
            self.report(path, f"must be a list of {kind}s, got {_shown(values)}")
            return ()
        found = []
        for i, item in enumerate(values):
            if isinstance(item, dict):
                found.append(self.component((*path, i), kind, item))
            else:
                self.report((*path, i), f"must be a name or a map with a name, got {_shown(item)}")
        return tuple(choice for choice in found if choice is not None)

    def component(self, path: KeyPath, kind: str, written: Mapping[str, Any]) -> Choice[Any] | None:
        values = dict(written)
        name = values.pop("name", None)
        if name is None:
            misspelt = nearest("name", values)
            if misspelt:
                self.report((*path, misspelt), "unknown key", "did you mean name?", at_key=True)
            else:
                self.report((*path, "name"), "is missing", _name_one(kind))
            return None
        if not isinstance(name, str):
            self.report((*path, "name"), f"must be text, got {_shown(name)}")
            return None
        try:
            component = registry.find(kind, name)
            with component.errors_attributed():
                checked_values = self.check_keys(path, component.keys, values, {"name"})
        except ConvrunError as error:
            self.report((*path, "name"), str(error))
            return None
        if checked_values is None:
            return None
        node = self.tree.at(path)
        shown = {
            key: reference
            for key, value in plain(checked_values).items()
            if node is not None and (reference := with_references(value, node.value.get(key))) != value
        }
        choice: Choice[Any] = Choice(kind, name, checked_values, path, shown)
        try:
            if "check" in component.meta:
                component.ask("check", **choice.own_values())
        except KeyProblem as error:
            self.report((*path, error.key) if error.key else path, error.message, error.cure)
            return None
        except ConvrunError as error:
            self.report((*path, "name"), str(error))
            return None
        return choice


def _defaults(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """A duration that is not given is one epoch."""
    durations = _DURATIONS.get(section)
    if durations and not any(values.get(name) is not None for name in durations):
        return {**values, durations[0]: 1} if not any(name in values for name in durations) else values
    return values


def _keys_around(path: KeyPath, keys: KeySet) -> Mapping[str, Key]:
    """The keys of the map in which a path ends: the section itself, or a section inside it."""
    around: Mapping[str, Key] = keys.keys
    for step in path[:-1]:
        annotation = around[str(step)].annotation if step in around else None
        around = key_set_of(annotation).keys if is_section(annotation) else {}
    return around


def _name_one(kind: str) -> str:
    return f"name {KINDS[kind].with_article}: convrun list components --kind {kind}"


def _quoted(message: str) -> list[str]:
    return [part for part in message.split("'")[1::2] if part]


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else masked(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."
