"""Whole runs that start from a file."""

import argparse
import json
import os

import pytest
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file
from torchvision.models.convnext import CNBlockConfig

from convrun import checkpoints
from convrun.errors import CheckpointError, ModelError
from convrun.plan import Machine, make_plan
from convrun.training.ema import Ema
from convrun.training.loop import Loop
from convrun.training.run import build_model
from convrun.validation.report import validated
from convrun.weights.layouts import renamed
from convrun.weights.tables import TABLES
from tests.weights.other_names import in_layout

STANDARD = ["model.patch_size=4", "model.kernel_size=7", "input_size=32", "data.image_size=32"]
ONE_STEP = ["training.epochs=null", "training.steps=1", "scheduler.warmup_steps=0", "evaluation=null", "callbacks=[]"]


def line_of(folder):
    lines = [line for line in (folder / "train.log").read_text().splitlines() if line.startswith("init: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def first_weights(monkeypatch):
    """The weights and the EMA a trainer begins with."""
    seen = {}
    train = Loop.run

    def noting(self):
        seen["model"] = {key: tensor.clone() for key, tensor in self.state.model.state_dict().items()}
        seen["ema"] = {key: tensor.clone() for key, tensor in self.state.ema.state_dict().items()}
        return train(self)

    monkeypatch.setattr(Loop, "run", noting)
    return seen


def ours(state, layout):
    """In convrun's names, by the first table of that layout."""
    table = next(table for table in TABLES if table.layout == layout)
    return {name: tensor for name, (_, tensor) in renamed(state, table).items()}


def of_torchvision(path):
    config = [CNBlockConfig(a, b, 1) for a, b in zip((4, 8, 8, 8), (8, 8, 8, None), strict=True)]
    state = torchvision.models.convnext.ConvNeXt(config, num_classes=3).state_dict()
    torch.save(state, path)
    return ours(state, "torchvision")


def of_transformers(path):
    config = transformers.ConvNextConfig(hidden_sizes=[4, 8, 8, 8], depths=[1, 1, 1, 1], num_labels=3)
    state = transformers.ConvNextForImageClassification(config).state_dict()
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return ours(state, "transformers")


def released(state, path):
    torch.save({"model": in_layout(state, "released"), "args": argparse.Namespace(model="convnext")}, path)


def of_timm_training(state, path):
    wrapped = {f"module.{key}": tensor for key, tensor in state.items()}
    torch.save(
        {"state_dict": wrapped, "state_dict_ema": wrapped, "arch": "convnext", "args": argparse.Namespace()}, path
    )


@pytest.mark.parametrize("kind", ["torchvision", "transformers", "released", "timm", "safetensors"])
def test_a_run_starts_from_each_kind_of_file_and_so_does_its_ema(kind, train, tiny, tmp_path, first_weights):
    path = tmp_path / "weights.file"
    if kind in ("torchvision", "transformers"):
        state = {"torchvision": of_torchvision, "transformers": of_transformers}[kind](path)
    else:
        plan = make_plan(tiny(*STANDARD, "seed=11"), Machine(device="cpu", cores=1))
        state = build_model(plan).state_dict()
        {"released": released, "timm": of_timm_training, "safetensors": save_file}[kind](state, path)
    outcome = train(f"init.from={path}", *STANDARD, *ONE_STEP)
    assert outcome.step == 1
    assert first_weights["model"].keys() == state.keys() == first_weights["ema"].keys()
    for key, tensor in state.items():
        assert torch.equal(first_weights["model"][key], tensor)
        assert torch.equal(first_weights["ema"][key], tensor)
    assert line_of(outcome.folder).startswith(f"init: {len(state)} tensors loaded from weights.file (")


@pytest.mark.parametrize("weights", ["model", "ema"])
def test_a_run_starts_from_a_checkpoint_of_another_run(weights, reference, train, first_weights, tmp_path):
    path = (reference / "checkpoints" / "latest").resolve()
    saved = checkpoints.load(path)
    train(f"init={{from: {path}, weights: {weights}}}", *ONE_STEP)
    assert all(torch.equal(tensor, saved[weights][key]) for key, tensor in first_weights["model"].items())
    assert ("EMA" in line_of(tmp_path / "run")) == (weights == "ema")


def test_a_run_starts_from_the_weights_another_left(reference, train, first_weights):
    path = reference / "weights" / "last_ema.safetensors"
    train(f"init.from={path}", *ONE_STEP)
    expected = load_file(path)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in first_weights["model"].items())


def test_fine_tuning_makes_a_small_new_head_that_follows_from_the_seed(reference, train, tiny, tmp_path, first_weights):
    path = reference / "weights" / "last.safetensors"
    change = ["data.num_classes=7", "data.train_images=70"]
    init = f"init={{from: {path}, head: reinit, head_init_scale: 0.001}}"
    train(init, *change, *ONE_STEP)
    old, built = load_file(path), build_model(make_plan(tiny(*change), Machine(device="cpu", cores=1))).state_dict()
    for key, tensor in first_weights["model"].items():
        expected = built[key] * 0.001 if key.startswith("head.fc") else old[key]
        assert torch.equal(tensor, expected), key
    assert all(torch.equal(tensor, first_weights["model"][key]) for key, tensor in first_weights["ema"].items())
    line = line_of(tmp_path / "run")
    assert line.endswith("2 made new: head.fc.weight, head.fc.bias (the head's times 0.001)")


def test_a_run_that_goes_on_does_not_read_the_file(reference, train, tmp_path):
    path = tmp_path / "start.safetensors"
    path.write_bytes((reference / "weights" / "last.safetensors").read_bytes())
    overrides = [f"init.from={path}"]

    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        train(*overrides, at={6: stop})
    path.unlink()
    outcome = train(*overrides)
    assert outcome.step == 16
    assert line_of(tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["init.from=none.pth"], CheckpointError, "there is no file none.pth"),
        (["data.num_classes=7", "init.from={path}"], ModelError, "head of 3 classes, but the model has 7"),
        (["model.dims=[4, 4, 4, 4]", "init.from={path}"], ModelError, "does not fit the model"),
        (["init={from: '{path}', weights: ema}"], CheckpointError, "one set of weights and no EMA"),
    ],
)
def test_a_start_that_fails_leaves_no_folder(reference, train, tmp_path, overrides, error, message):
    path = str(reference / "weights" / "last.safetensors")
    with pytest.raises(error, match=message):
        train(*[text.replace("{path}", path) for text in overrides])
    assert not (tmp_path / "run").exists()


def test_build_checks_a_file_and_fetches_nothing(reference, tiny_file, server):
    path = reference / "weights" / "last.safetensors"

    def built(*overrides):
        report = validated(os.fspath(tiny_file), overrides, 1, ("build",), plugins=False)
        return report.exit_code, report.text, json.loads(json.dumps(report.data))

    code, text, data = built(f"init.from={path}")
    assert (code, data["model"]["init"].startswith("init: ")) == (0, True)
    assert "tensors loaded from last.safetensors" in text
    code, text, _ = built(f"init.from={server.url}/w.pth")
    assert code == 0
    assert f"{server.url}/w.pth is not downloaded by validate" in text
    assert server.requests == []
    code, text, _ = built(f"init.from={path}", "data.num_classes=7")
    assert code == 1
    assert "head of 3 classes, but the model has 7; init.head=reinit" in text
    assert built()[2]["model"]["init"] == ""


def test_the_ema_starts_from_the_weights_at_the_start():
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.fill_(3)
    assert torch.equal(Ema(model, 0.9).state_dict()["weight"], torch.full((2, 2), 3.0))
