"""A contract is complete in one file, which needs no other room."""

import ast
import importlib
import inspect

import pytest

from convrun.contracts import KINDS, Kind

# `randomness`, for the generators that augmentations draw from, only where types are checked.
ALLOWED = ("convrun.contracts.", "convrun.keys", "convrun.errors", "convrun.randomness")


def module_of(kind):
    return importlib.import_module(f"convrun.contracts.{kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_contract_imports_nothing_of_convrun_but_keys_and_errors(kind):
    tree = ast.parse(inspect.getsource(module_of(kind)))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in imported if name.startswith("convrun")}
    assert "convrun.contracts.kind" in ours
    assert {name for name in ours if not name.startswith(ALLOWED)} == set()


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
