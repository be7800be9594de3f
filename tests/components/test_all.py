"""What holds for every component of convrun, of whatever kind."""

import importlib.util
import pkgutil
import subprocess
import sys

import pytest

import convrun.components
from convrun.contracts import KINDS
from convrun.keys.key_sets import KeySet
from convrun.registry import registry

WRITTEN = [kind for kind, contract in KINDS.items() if importlib.util.find_spec(contract.module)]
COMPONENTS = [component for kind in WRITTEN for component in registry.all(kind) if component.provider == "convrun"]
MODULES = sorted(module.name for module in pkgutil.iter_modules(convrun.components.__path__, "convrun.components."))
HEAVY = ["torch", "torchvision", "timm", "numpy", "PIL", "tensorboard", "submitit"]


def test_components_are_found():
    assert len(COMPONENTS) >= 35
    assert {component.kind for component in COMPONENTS} == set(WRITTEN)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda c: f"{c.kind}-{c.name}")
def test_a_component_is_described(component):
    assert component.summary.endswith(".")
    assert "\n\n" not in component.summary
    assert component.source.rpartition(":")[2].isdigit()
    assert [key.name for key in component.keys.keys.values() if not key.meaning] == []


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda c: f"{c.kind}-{c.name}")
def test_defaults_pass_the_components_own_schema(component):
    keys = [key for key in component.keys.keys.values() if not key.is_required]
    defaults = {key.name: key.default for key in keys}
    assert KeySet(keys).check(defaults) == defaults


def test_importing_components_imports_nothing_heavy():
    code = f"import sys, {', '.join(MODULES)}; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(MODULES) >= 7
    assert result.stdout.strip() == "[]"
