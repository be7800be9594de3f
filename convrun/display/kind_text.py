"""A kind's contract as text, for plugin authors: `describe KIND`. All of it is written in `convrun.contracts`."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from convrun.contracts import Kind
from convrun.display.component_text import key_lines
from convrun.keys import keys_of_section, meaning_of, meanings_in
from convrun.keys.type_text import type_text


def kind_description(kind: Kind, names: list[str]) -> str:
    """A kind: its contract and its components."""
    lines = [kind.name, "", f"A recipe names it under `{kind.section}`."]
    lines += ["", "convrun passes" if kind.receives else "convrun passes nothing"]
    for name, received in kind.receives.items():
        lines += [f"  {name}: {_in_words(received)}", *_members(received)]
    lines += ["", "it returns", f"  {_in_words(kind.returns)}", *_members(kind.returns)]
    if kind.rules:
        lines += ["", "rules", *(f"  {rule}" for rule in kind.rules)]
    if kind.required_keys:
        lines += ["", f"among its keys must be {', '.join(kind.required_keys)}"]
    if shared := shared_keys(kind):
        lines += ["", f"keys that several have, in convrun.contracts.{kind.name}", *_shared_lines(shared)]
    if kind.required_meta:
        lines += ["", "register() also takes", *(f"  {n}: {m}" for n, m in kind.required_meta.items())]
    if kind.optional_meta:
        lines += ["", "and may take", *(f"  {n}: {m}" for n, m in kind.optional_meta.items())]
    if kind.settings:
        lines += ["", "keys of every such section", *key_lines(list(keys_of_section(kind.settings)))]
    return "\n".join([*lines, "", "components", f"  {', '.join(names) or 'none'}"])


def kind_data(kind: Kind, names: list[str]) -> dict[str, Any]:
    """The same, in short, as JSON-able data."""
    return {
        "kind": kind.name,
        "section": kind.section,
        "receives": {name: _in_words(received) for name, received in kind.receives.items()},
        "returns": _in_words(kind.returns),
        "rules": list(kind.rules),
        "components": names,
    }


def shared_keys(kind: Kind) -> dict[str, Any]:
    """The types in a kind's contract that say what a key means."""
    contract = importlib.import_module(f"convrun.contracts.{kind.name}")
    return {name: found for name, found in vars(contract).items() if meaning_of(found)}


def _shared_lines(shared: dict[str, Any]) -> list[str]:
    names = max(map(len, shared))
    return [
        line
        for name, annotation in shared.items()
        for line in (f"  {name:<{names}}  {type_text(annotation)}", f"  {'':<{names}}  {meaning_of(annotation)}")
    ]


def _in_words(contract: str | type[Any]) -> str:
    if isinstance(contract, str):
        return contract
    return f"{contract.__module__}.{contract.__qualname__}. {_first_paragraph(contract)}"


def _members(contract: str | type[Any]) -> list[str]:
    """A line for each field, property and method of a type, with what its docstring says of it."""
    if isinstance(contract, str):
        return []
    members = meanings_in(inspect.getdoc(contract) or "", list(inspect.get_annotations(contract)))
    for name, member in vars(contract).items():
        if isinstance(member, property):
            members[name] = _first_paragraph(member)
        elif inspect.isfunction(member) and (not name.startswith("_") or name == "__len__"):
            members[_call(name, member)] = _first_paragraph(member)
    return [f"    {name}: {meaning}" for name, meaning in members.items()]


def _call(name: str, method: Any) -> str:
    return f"{name}({', '.join(list(inspect.signature(method).parameters)[1:])})"


def _first_paragraph(documented: Any) -> str:
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())
