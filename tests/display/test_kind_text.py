import dataclasses
import json

import pytest

from convrun.contracts import KINDS
from convrun.display.kind_text import kind_data, kind_description, shared_keys
from convrun.keys import keys_of_section, meaning_of

TYPES = [
    pytest.param(kind, contract, id=f"{kind.name}-{contract.__name__}")
    for kind in KINDS.values()
    for contract in (*kind.receives.values(), kind.returns)
    if isinstance(contract, type)
]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_is_described_with_its_whole_contract(kind):
    text = kind_description(kind, ["a", "b"])
    settings = keys_of_section(kind.settings) if kind.settings else ()
    names = [*kind.receives, *kind.required_meta, *kind.optional_meta, *kind.required_keys, *shared_keys(kind)]
    assert [name for name in (*names, *(key.name for key in settings)) if f" {name}" not in text] == []
    meanings = [*kind.rules, *map(meaning_of, shared_keys(kind).values()), *(key.meaning for key in settings)]
    assert [meaning for meaning in meanings if f"  {meaning}\n" not in text] == []
    assert text.endswith("components\n  a, b")
    data = json.loads(json.dumps(kind_data(kind, ["a", "b"])))
    assert (data["kind"], list(data["receives"]), data["components"]) == (kind.name, list(kind.receives), ["a", "b"])
    assert f"  {data['returns']}" in text


@pytest.mark.parametrize(("kind", "contract"), TYPES)
def test_a_type_of_a_contract_is_described_with_its_members(kind, contract):
    text = kind_description(kind, [])
    assert f"{contract.__module__}.{contract.__qualname__}. " in text
    members = [f.name for f in dataclasses.fields(contract)] if dataclasses.is_dataclass(contract) else []
    members += [name for name in vars(contract) if not name.startswith("_")]
    assert members
    assert [name for name in members if f"\n    {name}" not in text] == []


def test_methods_are_shown_with_their_parameters():
    assert "\n    on_evaluation(row): Called with each evaluation" in kind_description(KINDS["callback"], [])
    assert "\n    steps_in(epochs): Optimizer steps" in kind_description(KINDS["scheduler"], [])
