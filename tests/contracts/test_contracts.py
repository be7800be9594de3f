"""A contract is complete in one file. That it needs no other room but keys, test_import_order says."""

import ast
import importlib
import inspect

import pytest

from convrun.contracts import KINDS, Kind


def module_of(kind):
    return importlib.import_module(f"convrun.contracts.{kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_contract_reads_from_its_types_to_the_kind(kind):
    """The Kind, which `describe` prints, is the last thing in its file; the types it names are above it."""
    module = module_of(kind)
    last = ast.parse(inspect.getsource(module)).body[-1]
    assert isinstance(last, ast.Assign)
    found = vars(module)[last.targets[0].id]
    assert isinstance(found, Kind)
    assert found is KINDS[kind]
    assert found.name == kind


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_settings_of_a_kind_stand_in_its_contract(kind):
    assert kind.settings is None or kind.settings.__module__ == f"convrun.contracts.{kind.name}"
