"""Where plugins are looked for, and what happens when one is broken. Each test runs the command line on its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCHEDULE = '''
from convrun.registry import register

@register("scheduler", "NAME")
def flat(horizon, *, share: float = 1.0):
    """The peak at every step.

    share: what the peak is multiplied by
    """
    return lambda step: horizon.peak_lr * share
'''
BROKEN = {
    "syntax.py": ("def broken(:\n", "SyntaxError"),
    "missing.py": ("import no_such_package\n", "No module named 'no_such_package'"),
    "exits.py": ("raise SystemExit('told to')\n", "SystemExit: told to"),
    "contract.py": (SCHEDULE.replace("horizon, *,", "*,"), "a scheduler is passed (horizon)"),
    "kind.py": (SCHEDULE.replace('"scheduler"', '"schedule"'), "there is no kind of component named 'schedule'"),
}


def convrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "convrun", *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )


def schedule(path: Path, name: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(SCHEDULE.replace("NAME", name))


def recipe(folder: Path, scheduler: str, plugins: str = "") -> None:
    text = f"extends: digits_demo\nscheduler: {scheduler}\n" + (f"plugins: [{plugins}]\n" if plugins else "")
    (folder / "recipe.yaml").write_text(text)


def test_the_working_folders_plugins_are_found(tmp_path):
    schedule(tmp_path / "plugins" / "flat.py", "flat")
    schedule(tmp_path / "plugins" / "_draft.py", "draft")
    recipe(tmp_path, "flat")
    assert convrun(tmp_path, "validate").returncode == 0
    rows = json.loads(convrun(tmp_path, "list", "components", "--kind", "scheduler", "--format", "json").stdout)
    assert {row["name"]: row["origin"] for row in rows}["flat"] == "plugin plugins/flat.py"
    assert "draft" not in {row["name"] for row in rows}
    described = convrun(tmp_path, "describe", "scheduler/flat").stdout
    assert f"{tmp_path}/plugins/flat.py:4" in described
    assert "what the peak is multiplied by" in described


def test_a_recipes_list_counts_from_the_recipe(tmp_path):
    schedule(tmp_path / "mine" / "flat.py", "flat")
    recipe(tmp_path / "mine", "flat", "flat.py")
    assert convrun(tmp_path, "validate", "mine/recipe.yaml").returncode == 0


def test_a_recipes_list_may_name_modules(tmp_path):
    schedule(tmp_path / "flat_module.py", "flat")
    recipe(tmp_path, "flat", "flat_module")
    assert convrun(tmp_path, "validate").returncode == 0  # `python -m` finds modules of the working folder


def test_no_plugins_loads_none(tmp_path):
    schedule(tmp_path / "plugins" / "flat.py", "flat")
    recipe(tmp_path, "flat")
    result = convrun(tmp_path, "validate", "--no-plugins")
    assert result.returncode == 2
    assert "scheduler.name: no scheduler is named 'flat'" in result.stderr
    assert "plugins searched" not in result.stderr


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_matters_only_where_it_is_needed(tmp_path, name):
    text, reason = BROKEN[name]
    schedule(tmp_path / "plugins" / name, "")
    (tmp_path / "plugins" / name).write_text(text)
    recipe(tmp_path, "constant")
    assert convrun(tmp_path, "validate").returncode == 0
    recipe(tmp_path, "broken")
    needed = convrun(tmp_path, "validate")
    assert needed.returncode == 2
    assert f"plugin plugins/{name} failed to import" in needed.stderr
    assert reason in needed.stderr
    assert "Traceback" not in needed.stderr
    listed = convrun(tmp_path, "list", "components", "constant")
    assert listed.returncode == 0
    assert f"plugin plugins/{name} failed to import" in listed.stderr


def test_nothing_stays_of_a_plugin_that_fails_half_way(tmp_path):
    schedule(tmp_path / "plugins" / "half.py", "half")
    with (tmp_path / "plugins" / "half.py").open("a") as file:
        file.write("\nraise ValueError('half way')\n")
    assert json.loads(convrun(tmp_path, "list", "components", "half", "--format", "json").stdout) == []


def test_a_listed_file_that_is_not_there_is_named(tmp_path):
    recipe(tmp_path, "flat", "gone.py")
    result = convrun(tmp_path, "validate")
    assert result.returncode == 2
    assert f"there is no file {tmp_path}/gone.py" in result.stderr


def test_two_components_of_one_name_are_an_error_that_names_both(tmp_path):
    schedule(tmp_path / "plugins" / "first.py", "same")
    schedule(tmp_path / "plugins" / "second.py", "same")
    schedule(tmp_path / "plugins" / "third.py", "cosine")
    recipe(tmp_path, "same")
    result = convrun(tmp_path, "validate")
    assert result.returncode == 2
    assert "plugins/first.py" in result.stderr
    assert "plugins/second.py" in result.stderr
    recipe(tmp_path, "{name: cosine}")
    assert "by convrun (" in convrun(tmp_path, "validate").stderr
