"""What `pip install .` brings, and plugins that come as installed packages. No test here needs a network."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from convrun import plugins

ROOT = Path(__file__).parents[1]
PLUGIN = '''
from convrun.contracts.scheduler import Horizon
from convrun.keys import PositiveFloat
from convrun.registry import register


@register("scheduler", "halved")
def halved(horizon: Horizon, *, share: PositiveFloat = 0.5):
    """Half the peak at every step.

    share: what the peak is multiplied by
    """
    return lambda step: horizon.peak_lr * share
'''
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "convrun-halved"
version = "1.0"

[project.entry-points."convrun.plugins"]
halved = "convrun_halved"
"""


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--disable-pip-version-check", "--no-index"], check=True, capture_output=True, text=True)


def python(*arguments: str, folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder with another folder before all installed packages."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", ROOT, "--wheel-dir", folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip("install", wheel, "--target", target)
    return target


@pytest.fixture(scope="module")
def plugin_package(tmp_path_factory) -> Path:
    """A folder into which pip has installed a package that provides a schedule."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("plugin_package")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "convrun_halved.py").write_text(PLUGIN)
    pip("install", source, "--target", target)
    return target


def test_the_wheel_holds_the_package_the_recipes_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"convrun/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")}
    assert len(recipes) >= 20
    assert any(Path(name).name.startswith("_") for name in recipes)
    assert recipes <= names
    assert {"convrun/assets/digits.npz", "convrun/assets/digits.md", "convrun/py.typed"} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"convrun"}
    assert not [name for name in names if "test" in name]


def test_an_installed_convrun_needs_no_checkout(installed, tmp_path):
    where = python("-c", "import convrun; print(convrun.__file__)", folder=tmp_path, path=installed)
    assert where.stdout.strip() == str(installed / "convrun" / "__init__.py")
    plan = python("-m", "convrun", "validate", "digits_demo", folder=tmp_path, path=installed)
    assert (plan.returncode, plan.stderr) == (0, "")
    assert plan.stdout.startswith("recipe       digits_demo: ")
    listed = python("-m", "convrun", "list", "recipes", "--format", "json", folder=tmp_path, path=installed)
    shipped = {path.stem for path in (ROOT / "recipes").glob("[!_]*.yaml")}
    assert {row["name"] for row in json.loads(listed.stdout)} == shipped
    assert not list(tmp_path.iterdir())


def test_a_copied_recipe_finds_its_shipped_parent(installed, tmp_path):
    python("-m", "convrun", "copy", "convnext_tiny_in1k", "mine.yaml", folder=tmp_path, path=installed)
    assert "extends:" in (tmp_path / "mine.yaml").read_text()
    plan = python("-m", "convrun", "validate", "mine.yaml", folder=tmp_path, path=installed)
    assert (plan.returncode, plan.stderr) == (0, "")


def test_an_installed_plugin_is_listed_with_its_origin(plugin_package, tmp_path):
    arguments = ("-m", "convrun", "list", "components", "halved", "--format", "json")
    listed = python(*arguments, folder=tmp_path, path=plugin_package)
    assert json.loads(listed.stdout) == [
        {"name": "halved", "kind": "scheduler", "origin": "plugin halved", "summary": "Half the peak at every step."}
    ]
    without = python(*arguments, "--no-plugins", folder=tmp_path, path=plugin_package)
    assert json.loads(without.stdout) == []


def test_a_recipe_may_name_what_an_installed_plugin_provides(plugin_package, tmp_path):
    (tmp_path / "recipe.yaml").write_text("extends: digits_demo\nscheduler: {name: halved, share: 0.25}\n")
    plan = python("-m", "convrun", "validate", folder=tmp_path, path=plugin_package)
    assert (plan.returncode, plan.stderr) == (0, "")
    assert "halved" in plan.stdout
    elsewhere = python("-m", "convrun", "validate", folder=tmp_path, path=tmp_path)
    assert elsewhere.returncode == 2
    assert "no scheduler is named 'halved'" in elsewhere.stderr


def test_installed_plugins_are_looked_for_only_where_there_are_some(plugin_package, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(plugin_package)])
    assert plugins._is_group_used()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not plugins._is_group_used()
    strange = tmp_path / "a [b] folder"
    strange.symlink_to(plugin_package)
    monkeypatch.setattr(sys, "path", [str(strange)])
    assert plugins._is_group_used()
    monkeypatch.chdir(plugin_package)
    monkeypatch.setattr(sys, "path", [""])
    assert plugins._is_group_used()


PROJECT_TABLE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Parts of pydantic that it brings along.
BROUGHT_ALONG = {"pydantic-core", "annotated-types"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def imported_packages(folder: Path) -> set[str]:
    """The installed packages that the Python files below a folder import, anywhere in them."""
    modules = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules.add(node.module.partition(".")[0])
    provided_by = importlib.metadata.packages_distributions()
    used = modules - set(sys.stdlib_module_names) - {"convrun", "tests", "benchmarks"}
    assert used <= set(provided_by), f"not installed: {used - set(provided_by)}"
    return {provided_by[module][0].lower().replace("_", "-") for module in used}


def test_what_the_package_imports_is_declared():
    extras = PROJECT_TABLE["optional-dependencies"]
    optional = names([*extras["parquet"], *extras["wandb"]])
    assert imported_packages(ROOT / "convrun") - BROUGHT_ALONG <= names(PROJECT_TABLE["dependencies"]) | optional


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "plugins"])
def test_what_tests_import_is_in_the_dev_extra(folder):
    declared = names([*PROJECT_TABLE["dependencies"], *PROJECT_TABLE["optional-dependencies"]["dev"]])
    assert imported_packages(ROOT / folder) - BROUGHT_ALONG <= declared


def test_the_dev_extra_holds_what_optional_features_need():
    extras = PROJECT_TABLE["optional-dependencies"]
    assert set(extras["parquet"]) | set(extras["wandb"]) <= set(extras["dev"])
