import json

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from convrun import checkpoints
from convrun.weights.facts import facts_in

SMALL_ATTO = ("model={name: convnext_atto, drop_path_rate: 0.1}", "input_size=32", "training.steps=6",
              "training.epochs=null", "data.image_size=32", "data.train_images=16")  # fmt: skip


@pytest.fixture(scope="module")
def folder(train_in, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "run"
    train_in(folder, *SMALL_ATTO)
    return folder


def logits(weights):
    model = timm.create_model("convnext_atto", num_classes=3)
    model.load_state_dict(weights)
    with torch.no_grad():
        return model.eval()(torch.ones(2, 3, 32, 32))


def test_there_are_four_files_and_what_they_are_of(folder):
    names = {"last.safetensors", "last_ema.safetensors", "best.safetensors", "best_ema.safetensors"}
    assert {path.name for path in (folder / "weights").iterdir()} == names | {"classes.json", "model.json"}
    assert json.loads((folder / "weights" / "classes.json").read_text()) == ["class 0", "class 1", "class 2"]
    described = json.loads((folder / "weights" / "model.json").read_text())
    assert set(described["files"]) == names
    plan = json.loads((folder / "plan.json").read_text())
    assert described["recipe_hash"] == plan["recipe_hash"]
    assert described["model"]["name"] == "convnext_atto"
    assert (described["num_classes"], described["input_size"]) == (3, 32)


def test_each_file_tells_what_it_is_of(folder):
    described = json.loads((folder / "weights" / "model.json").read_text())
    for path in (folder / "weights").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        assert metadata["format"] == "pt"  # what transformers and timm ask for
        assert json.loads(metadata["class_names"]) == ["class 0", "class 1", "class 2"]
        facts = facts_in(metadata, path.name)
        assert {**facts.as_dict(), "recipe_hash": described["recipe_hash"], "files": described["files"]} == described


@pytest.mark.parametrize("which", ["last", "best"])
def test_timm_loads_them_and_computes_the_same(folder, which):
    saved = checkpoints.load((folder / "checkpoints" / {"last": "latest"}.get(which, which)).resolve())
    own, averaged = (load_file(folder / "weights" / f"{which}{suffix}.safetensors") for suffix in ("", "_ema"))
    assert torch.equal(logits(own), logits(saved["model"]))
    assert torch.equal(logits(averaged), logits(saved["ema"]))
    assert not torch.equal(logits(own), logits(averaged))


def test_timm_creates_the_model_from_the_file_itself(folder):
    path = folder / "weights" / "last.safetensors"
    model = timm.create_model("convnext_atto", num_classes=3, checkpoint_path=str(path))
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in load_file(path).items())
    overlay = {"file": str(path), "num_classes": 3}
    other = timm.create_model("convnext_atto", num_classes=3, pretrained=True, pretrained_cfg_overlay=overlay)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in load_file(path).items())
