"""The JSON Schema of a recipe, all components included, for editors."""

from __future__ import annotations

import json
from typing import Any

from convrun.keys import Key, keys_of_section
from convrun.keys.key_sets import KeySet
from convrun.recipe.inheritance import LIST_SECTIONS, SINGLE_SECTIONS
from convrun.recipe.sections import PLAIN_SECTIONS, Header
from convrun.registry import Component, registry

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """The schema of what a user writes. Nothing is required: what is missing may come from `extends`."""
    properties = _properties(list(keys_of_section(Header)))
    for name, section in PLAIN_SECTIONS.items():
        keys = _properties(list(keys_of_section(section)))
        described = {"type": "object", "additionalProperties": False, "properties": keys}
        properties[name] = {"description": _first_line(section), "anyOf": [described, {"type": "null"}]}
    for name, kind in SINGLE_SECTIONS.items():
        properties[name] = {"$ref": f"#/$defs/{kind}"}
    for name, kind in LIST_SECTIONS.items():
        items = {"type": "array", "items": {"$ref": f"#/$defs/{kind}"}}
        top, _, below = name.partition(".")
        if below:
            properties[top]["anyOf"][0]["properties"][below] = items
        else:
            properties[top] = items
    kinds = [*SINGLE_SECTIONS.values(), *LIST_SECTIONS.values()]
    return {
        "$schema": DIALECT,
        "title": "convrun recipe",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": {kind: _kind_schema(kind) for kind in kinds},
    }


def _kind_schema(kind: str) -> dict[str, Any]:
    components = registry.all(kind)
    names = [c.name for c in components if not c.is_family]
    families = [{"type": "string", "pattern": f"^{c.name[:-1]}.+"} for c in components if c.is_family]
    keys: dict[str, Any] = {name: {} for c in components for name in c.keys.keys}
    nameless = {"type": "object", "not": {"required": ["name"]}, "properties": keys, "additionalProperties": False}
    return {"anyOf": [{"enum": names}, *families, *map(_component_schema, components), nameless]}


def _component_schema(component: Component) -> dict[str, Any]:
    name = {"pattern": f"^{component.name[:-1]}.+"} if component.is_family else {"const": component.name}
    return {
        "type": "object",
        "description": component.summary,
        "required": ["name"],
        "additionalProperties": False,
        "properties": {"name": name, **_properties(list(component.keys.keys.values()))},
    }


def _properties(keys: list[Key]) -> dict[str, Any]:
    if not keys:
        return {}
    from pydantic.json_schema import GenerateJsonSchema

    schema: dict[str, Any] = GenerateJsonSchema().generate(KeySet(keys).schema)
    properties = schema["properties"]
    for key in keys:
        described = properties[key.name]
        described.pop("title", None)
        if "$ref" in json.dumps(described):
            described = {}  # a plugin's type that refers to another type: convrun checks it, editors do not
        if key.meaning:
            described["description"] = key.meaning
        properties[key.name] = _with_reference(described)
    return dict(properties)


def _with_reference(described: dict[str, Any]) -> dict[str, Any]:
    """A number, or a text with a pattern, may come from the environment, so the schema allows a reference instead."""
    reference = {"type": "string", "pattern": r"^\$\{env:"}
    if _has_form(described):
        about = {name: described.pop(name) for name in ("description", "default") if name in described}
        return about | {"anyOf": [described, reference]}
    if any(map(_has_form, described.get("anyOf", ()))):
        described["anyOf"].append(reference)
    return described


def _has_form(described: dict[str, Any]) -> bool:
    return described.get("type") in ("integer", "number", "boolean") or "pattern" in described


def _first_line(section: type[Any]) -> str:
    return (section.__doc__ or "").splitlines()[0]
