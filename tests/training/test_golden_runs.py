"""convrun's own loop reproduces runs of the released training code (arXiv:2201.03545) step by step.

The figures in tests/golden were computed with the released code, float32 on a CPU; its README states the agreement to
expect: losses and learning rates to 1e-4, logits to 1e-6, final norms to 1e-4.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convrun.data.pipeline import MicroBatch
from convrun.plan import Machine, Plan, make_plan
from convrun.recipe import load_recipe
from convrun.recipe.sections import Init
from convrun.training.building import build_loop
from convrun.training.figures import Gradient
from convrun.training.loop import Loop
from convrun.training.model import build_model, placed
from convrun.training.run import open_data
from convrun.training.state import RunState
from convrun.weights.initial import load_initial
from convrun.weights.layouts import renamed
from convrun.weights.tables import TABLES

GOLDEN = Path(__file__).parent.parent / "golden"
STAGED = "{{name: convnext, depths: {depths}, dims: [4, 8, 16, 32], layer_scale_init: 1e-6}}"
MODELS = {
    "finetune_3-3-27-3": STAGED.format(depths=[3, 3, 27, 3]),
    "pretrain_3-3-9-3": STAGED.format(depths=[3, 3, 9, 3]),
    "isotropic_4": "{name: convnext_isotropic, depth: 4, dim: 32, patch_size: 16}",
}
RECIPE = """
input_size: 32
model: {model}
data: {{name: synthetic, train_images: {images}, val_images: 8, num_classes: 10, image_size: 32, workers: 0}}
loss: {{name: cross_entropy, label_smoothing: {smoothing}}}
optimizer: {{name: adamw, lr: {lr}, weight_decay: {weight_decay}, layer_decay: {layer_decay}}}
scheduler: {{name: cosine, warmup_epochs: {warmup_epochs}, min_lr: {min_lr}}}
training: {{epochs: {epochs}, batch_size: {batch}, micro_batch: {micro}}}
ema: {{decay: {ema_decay}}}
evaluation: null
"""


class GoldenBatches:
    """The golden run's micro-batches, in its order."""

    wait_seconds = 0.0

    def __init__(self, images: np.ndarray, targets: np.ndarray, accumulation: int) -> None:
        self.images, self.targets, self.accumulation = images, targets, accumulation

    def of_step(self, step: int) -> list[MicroBatch]:
        first = step * self.accumulation
        pairs = zip(self.images[first:], self.targets[first:], range(self.accumulation), strict=False)
        return [MicroBatch(step, n, torch.from_numpy(images), torch.from_numpy(labels)) for images, labels, n in pairs]

    def __enter__(self) -> GoldenBatches:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Recorder:
    """A recorder that keeps nothing: the run below notes what is compared."""

    def log(self, row: dict[str, Any]) -> None:
        pass

    def note_skipped(self, images: object) -> None:
        pass

    def advance(self, step: int) -> None:
        pass

    def save(self, state: RunState) -> None:
        pass


def noting(loop: Loop) -> tuple[list[float], list[float]]:
    """The loss of each micro-batch and the learning rate of each step, once the loop has run."""
    losses, rates, accumulate, update = [], [], loop.step.accumulate, loop.step.update

    def accumulate_and_note(micro_batch: MicroBatch) -> torch.Tensor:
        share = accumulate(micro_batch)
        losses.append(share.item() * loop.plan.accumulation)
        return share

    def update_and_note(gradient: Gradient, lr: float) -> None:
        update(gradient, lr)
        rates.append(max(group["lr"] for group in loop.state.optimizer.param_groups))

    loop.step.accumulate, loop.step.update = accumulate_and_note, update_and_note
    return losses, rates


@dataclasses.dataclass
class Run:
    golden: dict[str, Any]
    plan: Plan
    state: RunState
    losses: list[float]
    rates: list[float]
    first_logits: torch.Tensor


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory) -> Run:
    golden = json.loads((GOLDEN / f"{request.param}.json").read_text())
    batches = np.load(GOLDEN / f"{request.param}.batches.npz")
    micro, accumulation = golden["batch_size"], golden["update_freq"]
    text = RECIPE.format(
        model=MODELS[request.param],
        images=golden["steps_per_epoch"] * micro * accumulation,
        smoothing=0.1 if golden["loss"] == "label smoothing 0.1" else 0.0,
        batch=micro * accumulation,
        micro=micro,
        **{key: golden[key] for key in ("lr", "weight_decay", "layer_decay", "min_lr", "epochs", "ema_decay")},
        warmup_epochs=golden["warmup_epochs"],
    )
    path = tmp_path_factory.mktemp("golden") / "recipe.yaml"
    path.write_text(text)
    plan = make_plan(load_recipe(path, plugins=False), Machine(device="cpu"))
    assert (plan.steps_per_epoch, plan.accumulation) == (golden["steps_per_epoch"], accumulation)
    model = build_model(plan)
    load_initial(model, Init(from_=str(GOLDEN / f"{request.param}.init.pth")), plan.num_classes)
    images = open_data(plan.data)
    loop = build_loop(plan, placed(model, plan, torch.device("cpu")), images, None, Recorder())
    loop.batches = GoldenBatches(batches["images"], batches["targets"], accumulation)
    losses, rates = noting(loop)
    model.eval()
    with torch.no_grad():
        first_logits = model(loop.step.inputs(torch.from_numpy(batches["images"][0])))
    loop.run()
    return Run(golden, plan, loop.state, losses, rates, first_logits)


def test_logits_of_the_loaded_weights(run):
    wanted = torch.tensor(run.golden["logits_first_batch_eval"])
    torch.testing.assert_close(run.first_logits, wanted, rtol=1e-6, atol=1e-6)


def test_every_loss(run):
    assert len(run.losses) == len(run.golden["losses"]) == 40
    np.testing.assert_allclose(run.losses, run.golden["losses"], rtol=1e-4)


def test_every_learning_rate(run):
    np.testing.assert_allclose(run.rates, run.golden["learning_rates"], rtol=1e-4)


def test_final_weights(run):
    compare_norms(run.golden["final_weight_norms"], run.state.model.state_dict())


def test_final_ema(run):
    assert run.state.ema is not None
    compare_norms(run.golden["final_ema_norms"], run.state.ema.state_dict())


def compare_norms(wanted: dict[str, float], weights: dict[str, torch.Tensor]) -> None:
    """Norms by the released code's names against ours."""
    layout = {name: torch.tensor(norm) for name, norm in wanted.items()}
    of_each_table = [renamed(layout, table) for table in TABLES if table.layout == "released"]
    translated = next(found for found in of_each_table if found.keys() == weights.keys())
    for name, (_, norm) in translated.items():
        assert weights[name].norm().item() == pytest.approx(norm.item(), rel=1e-4, abs=1e-7), name
