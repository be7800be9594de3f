import re

import pytest

from convrun.contracts import KINDS
from convrun.display.component_text import description, description_data, snippet, value_text
from convrun.recipe.tree import read_text
from convrun.registry import registry
from convrun.text.tables import table

OURS = [c for c in registry.all() if c.provider == "convrun"]


@pytest.mark.parametrize("component", OURS, ids=lambda c: f"{c.kind}/{c.name}")
def test_every_component_is_described_with_all_its_keys(component):
    text, data = description(component), description_data(component)
    assert text.splitlines()[0] == f"{component.kind}/{component.name}"
    assert f"defined in convrun ({component.source})" in text
    for key in data["keys"]:
        assert key["meaning"] in text
        told = "required" if key["required"] else f"default {value_text(key['default'])}"
        assert re.search(rf"^  {key['name']} +{re.escape(key['type'])} +{re.escape(told)}$", text, re.MULTILINE)


@pytest.mark.parametrize("component", OURS, ids=lambda c: f"{c.kind}/{c.name}")
def test_every_snippet_is_yaml_under_the_kinds_section(component):
    tree = read_text(snippet(component), "test")
    path = tuple(KINDS[component.kind].section.split("."))
    node = tree.at((*path, 0)) if KINDS[component.kind].is_list else tree.at(path)
    written = node.plain()
    assert written.pop("name") == component.name.replace("*", "NAME")
    assert list(written) == [key.name for key in component.own_keys]
    for key in component.own_keys:
        if not key.is_required:
            default = list(key.default) if isinstance(key.default, tuple) else key.default
            assert written[key.name] == default


def test_a_table_is_aligned_and_cut_to_its_width():
    rows = [{"name": "a", "summary": "short"}, {"name": "longer", "summary": "x" * 50}]
    assert table(rows, 20) == "name    summary\na       short\nlonger  xxxxxxxxxxx…"
    assert table([], 20) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-8, "1e-08"), (None, "null"), (True, "true"), ((0.9, 0.999), "[0.9, 0.999]"), ("word", "word"), ("", '""'),
     ("1e3", '"1e3"'), ("a, b", '"a, b"'), ("null", '"null"'), ("rand-m9-mstd0.5-inc1", "rand-m9-mstd0.5-inc1")],
)  # fmt: skip
def test_a_default_is_shown_as_yaml(value, text):
    assert value_text(value) == text
    assert read_text(f"[{text}]", "test").plain() == [list(value) if isinstance(value, tuple) else value]
