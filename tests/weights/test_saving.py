import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from convrun.errors import CheckpointError, RunFolderError
from convrun.weights.facts import ModelFacts, class_names_in, facts_in
from convrun.weights.saving import save_weights

FACTS = ModelFacts(
    model={"name": "convnext", "depths": [1, 1, 1, 1], "drop_path_rate": 0.1, "layer_scale_init": None},
    class_names=("café", "dog", 'a "b"'),
    num_classes=4,
    input_size=64,
    mean=(0.5, 0.4, 0.3),
    std=(0.1, 0.2, 0.3),
    crop_ratio=None,
    interpolation="bilinear",
    recipe_hash="0123",
)
STATE = {"b.weight": torch.arange(6.0).reshape(2, 3).T, "a": torch.tensor([1, 2]), "half": torch.ones(3).half()}


def metadata_of(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_tensors_and_facts_come_back(tmp_path):
    (path,) = save_weights(tmp_path / "weights", {"last": STATE}, FACTS)
    loaded = load_file(path)
    assert loaded.keys() == STATE.keys()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in STATE.items())
    assert all(loaded[key].dtype == tensor.dtype for key, tensor in STATE.items())
    assert facts_in(metadata_of(path), "w") == dataclasses.replace(FACTS, recipe_hash="")
    assert json.loads((tmp_path / "weights" / "model.json").read_text())["recipe_hash"] == "0123"


def test_people_can_read_what_lies_beside_them(tmp_path):
    save_weights(tmp_path, {"last": STATE, "best_ema": STATE}, FACTS)
    assert (tmp_path / "classes.json").read_text() == '[\n  "café",\n  "dog",\n  "a \\"b\\""\n]\n'
    assert class_names_in(tmp_path / "classes.json") == FACTS.class_names
    described = json.loads((tmp_path / "model.json").read_text())
    assert described["crop_ratio"] == "squash"
    assert described["files"] == {
        "last.safetensors": "the model's weights at the end of the run",
        "best_ema.safetensors": "their exponential moving average at the best evaluation",
    }


def test_the_same_weights_give_the_same_bytes(tmp_path):
    """Safetensors writes metadata in another order in each process; the campaign compares bytes."""
    save_weights(tmp_path, {"last": STATE}, FACTS)
    content = (tmp_path / "last.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert next(iter(header)) == "__metadata__"
    assert list(header["__metadata__"]) == list(FACTS.metadata())
    assert int.from_bytes(content[:8], "little") % 8 == 0


def test_names_in_no_encoding_are_kept(tmp_path):
    facts = dataclasses.replace(FACTS, class_names=("caf\udce9", "b"))
    (path,) = save_weights(tmp_path, {"last": STATE}, facts)
    assert class_names_in(tmp_path / "classes.json") == ("caf\udce9", "b")
    assert facts_in(metadata_of(path), "w").class_names == ("caf\udce9", "b")


def test_what_an_earlier_export_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "mine.safetensors").write_bytes(b"x")
    save_weights(tmp_path, {"last": STATE, "best": STATE}, FACTS)
    save_weights(tmp_path, {"last": STATE}, FACTS)
    assert {path.name for path in tmp_path.iterdir()} == {
        "last.safetensors", "mine.safetensors", "classes.json", "model.json",
    }  # fmt: skip


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    save_weights(tmp_path, {"last": STATE}, FACTS)
    before = (tmp_path / "last.safetensors").read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunFolderError, match=r"weights in .* cannot be written: No space left on device; free space"):
        save_weights(tmp_path, {"last": {"a": torch.zeros(2)}}, FACTS)
    assert (tmp_path / "last.safetensors").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".draft")]


def test_a_file_of_another_program_has_no_facts():
    assert facts_in({"format": "pt"}, "w") is None
    assert facts_in({}, "w") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_classes", "2"),
        ("num_classes", "many"),
        ("input_size", "-3"),
        ("input_size", "2.5"),
        ("mean", "[1, 2]"),
        ("std", "[0, 1, 1]"),
        ("crop_ratio", "3"),
        ("class_names", '["a", 3, "b"]'),
        ("class_names", "[]"),
        ("model", "[1]"),
        ("model", "{}"),
        ("model", "{"),
        ("interpolation", None),
    ],
)
def test_metadata_that_convrun_did_not_write_are_refused(key, value):
    metadata = {**FACTS.metadata(), key: value}
    if value is None:
        del metadata[key]
    with pytest.raises(CheckpointError, match=r"the metadata of w is not what convrun writes \(.*take the file that"):
        facts_in(metadata, "w")


@pytest.mark.parametrize("text", ["", "[", '{"a": 1}', "[1, 2]", "[]"])
def test_a_list_of_classes_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"(?s)classes\.json .*write the list of their names in label order"):
        class_names_in(tmp_path / "classes.json")
