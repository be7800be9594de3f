"""A key that several components of a kind share: its sentence is the same everywhere, and written once."""

import ast
import inspect
from collections import Counter
from pathlib import Path

import pytest

import convrun
from convrun.contracts import KINDS
from convrun.keys import keys_of_section, meanings_in
from convrun.plugins import load_plugins

ROOT = Path(convrun.__file__).parents[1]
SOURCES = [*(ROOT / "convrun" / "contracts").glob("*.py"), *(ROOT / "convrun" / "components").glob("*.py"),
           *(ROOT / "plugins").glob("*.py")]  # fmt: skip
# (kind, key) -> the components whose key of this name means something else.
SHARED = {
    ("optimizer", "lr"): set(),
    ("optimizer", "weight_decay"): {"sgd", "lamb", "timm/*"},  # L2, before the scaling, as that optimizer has it
    ("optimizer", "betas"): {"lion"},  # two weights of one momentum
    ("optimizer", "eps"): set(),
    ("scheduler", "min_lr"): set(),
    ("model", "depths"): set(),
    ("model", "dims"): set(),
    ("model", "drop_path_rate"): {"timm/*"},  # null: the model's own default
    ("model", "drop_rate"): {"timm/*"},
    ("model", "layer_scale_init"): set(),
    ("data", "num_classes"): {"synthetic"},  # made, not declared
    ("data", "train_images"): {"synthetic"},
    ("data", "val_images"): {"synthetic"},
    ("data", "grey_range"): set(),
    ("loss", "label_smoothing"): set(),
}


@pytest.fixture
def components(fresh_registry):
    load_plugins(folder=ROOT / "plugins")
    return fresh_registry.all()


def written_sentences():
    """How often each sentence stands in the sources: as a text of its own, or as a key's line in a docstring."""
    found = Counter()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = inspect.cleandoc(node.value)
                names = {line.partition(":")[0].strip() for line in text.splitlines() if ": " in line}
                found.update(meanings_in(text, list(names)).values() if "\n" in text else [text])
    return found


def test_a_shared_key_means_the_same_everywhere(components):
    for (kind, name), others in SHARED.items():
        keys = {c.name: key for c in components if c.kind == kind for key in c.own_keys if key.name == name}
        assert len({key.meaning for component, key in keys.items() if component not in others}) == 1, (kind, name)
        assert len(keys) - len(others) > 1, (kind, name)
        assert others <= set(keys), (kind, name)


def test_a_sentence_stands_once(components):
    """Whether a key is of one component, of several, or of every section of its kind."""
    sentences = {key.meaning for c in components for key in c.own_keys}
    sentences |= {key.meaning for kind in KINDS.values() if kind.settings for key in keys_of_section(kind.settings)}
    written = written_sentences()
    assert len(sentences) > 100
    assert {text: written[text] for text in sentences if written[text] != 1} == {}


def test_components_of_a_kind_share_no_sentence_unnoticed(components):
    """A sentence that two components use belongs to a shared key, so it is in the table above."""
    used = Counter((c.kind, key.name, key.meaning) for c in components for key in c.own_keys)
    assert {(kind, name) for (kind, name, _), times in used.items() if times > 1} <= set(SHARED)
