import pytest
import timm
import torch
from safetensors.torch import load_file

from convrun import checkpoints

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


def test_there_are_four_files(folder):
    names = {"last.safetensors", "last_ema.safetensors", "best.safetensors", "best_ema.safetensors"}
    assert {path.name for path in (folder / "weights").iterdir()} == names


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
