"""Where plugins are looked for, and what becomes of those that fail; tests/plugins runs recipes with real ones."""

import sys

import pytest

from convrun.plugins import load_plugins
from convrun.recipe import load_recipe

LOSS = """
from convrun.registry import register

@register("loss", "{name}")
def build():
    '''A loss.'''
    return "{says}"
"""


@pytest.fixture
def plugin(tmp_path):
    def plugin(path, name="mine", says="", text=LOSS):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(name=name, says=says))
        return file

    return plugin


def test_a_folder_gives_its_files_but_not_those_that_begin_with_an_underscore(fresh_registry, plugin, tmp_path):
    plugin("plugins/b.py", "b")
    plugin("plugins/a.py", "a")
    plugin("plugins/_shared.py", "hidden")
    plugin("plugins/deep/c.py", "deep")
    load_plugins(folder=tmp_path / "plugins")
    assert fresh_registry.searched == ["plugins/a.py", "plugins/b.py"]
    assert {"a", "b"} <= {c.name for c in fresh_registry.all("loss")}
    assert not {"hidden", "deep"} & {c.name for c in fresh_registry.all("loss")}


def test_what_systems_leave_in_the_folder_is_no_plugin(fresh_registry, plugin, tmp_path):
    plugin("plugins/a.py", "a")
    for name in ("._a.py", ".#a.py", ".ipynb_checkpoints/a-checkpoint.py", "__pycache__/a.py"):
        plugin(f"plugins/{name}", "left")
    load_plugins(folder=tmp_path / "plugins")
    assert (fresh_registry.searched, fresh_registry.failures) == (["plugins/a.py"], {})


def test_no_folder_is_no_error(fresh_registry, tmp_path):
    load_plugins(folder=tmp_path / "plugins")
    assert (fresh_registry.searched, fresh_registry.failures) == ([], {})


def test_a_plugin_is_imported_once_a_process(fresh_registry, plugin, tmp_path):
    file = plugin("plugins/a.py", text="import sys\nsys.counted = getattr(sys, 'counted', 0) + 1\n")
    for _ in range(2):
        load_plugins([str(file)], tmp_path / "plugins")
    try:
        assert sys.counted == 1
    finally:
        del sys.counted


def test_two_files_of_one_name_are_two_plugins(fresh_registry, plugin):
    load_plugins([str(plugin("x/same.py", "first", "x")), str(plugin("y/same.py", "second", "y"))])
    assert fresh_registry.find("loss", "first").create() == "x"
    assert fresh_registry.find("loss", "second").create() == "y"


def test_a_module_is_named_as_python_imports_it(fresh_registry, plugin, tmp_path, monkeypatch):
    plugin("package_of_mine/losses.py", "packaged")
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins(["package_of_mine.losses"])
    assert fresh_registry.find("loss", "packaged").provider == "plugin package_of_mine.losses"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise ValueError('two' + chr(10) + 'lines')", "ValueError: two lines"),
        ("raise ValueError", "ValueError:"),
        ("from convrun.registry import register\nregister('loss', 'x')(lambda a: a)", "takes ['a'] by position"),
        ("from convrun.registry import register\nregister('lost', 'x')", "no kind of component named 'lost'"),
        ("from convrun.registry import register\nregister('loss', 'x')(3)", "Error: "),
    ],
)
def test_a_plugin_that_fails_is_noted_with_its_reason_on_one_line(fresh_registry, plugin, tmp_path, text, reason):
    plugin("plugins/bad.py", text=text.replace("{", "{{"))
    plugin("plugins/good.py", "good")
    load_plugins(folder=tmp_path / "plugins")
    assert list(fresh_registry.failures) == ["plugins/bad.py"]
    assert reason in fresh_registry.failures["plugins/bad.py"]
    assert "\n" not in fresh_registry.failures["plugins/bad.py"]
    assert fresh_registry.find("loss", "good").provider == "plugin plugins/good.py"


@pytest.mark.parametrize("name", ["", ".", ".x", "a b", "no.such.module", "a\0b", "/no/file.py", "x" * 300 + ".py"])
def test_a_listed_plugin_that_cannot_be_is_noted(fresh_registry, name):
    load_plugins([name])
    assert list(fresh_registry.failures) == [name]


def test_a_recipes_plugins_are_files_from_its_folder_or_modules(fresh_registry, plugin, tmp_path, monkeypatch):
    plugin("recipes/shared/loss.py", "shared", "shared")
    (tmp_path / "recipes" / "mine.yaml").write_text("extends: digits_demo\nplugins: [shared/loss.py]\nloss: shared\n")
    monkeypatch.chdir(plugin("elsewhere/x.txt").parent)
    recipe = load_recipe(tmp_path / "recipes" / "mine.yaml")
    assert recipe.loss.create() == "shared"
    assert recipe.plugins == (str(tmp_path / "recipes" / "shared" / "loss.py"),), "it reruns from anywhere"


def test_a_plugin_of_an_override_counts_from_the_working_folder(fresh_registry, plugin, tmp_path, monkeypatch):
    monkeypatch.chdir(plugin("elsewhere/loss.py", "override").parent)
    recipe = load_recipe("digits_demo", ["plugins=[loss.py]", "loss=override"])
    assert recipe.plugins == (str(tmp_path / "elsewhere" / "loss.py"),)


@pytest.mark.parametrize("written", ['"a\\0b.py"', '"x.py"', '""', '"$(touch x).py"'])
def test_an_odd_plugin_name_in_a_recipe_is_noted_and_no_more(fresh_registry, written):
    recipe = load_recipe("digits_demo", [f"plugins=[{written}]"])
    assert len(recipe.plugins) == len(fresh_registry.failures) == 1
