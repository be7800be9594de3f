"""The example model: ConvNeXt with squeeze-and-excitation."""

import pytest
import torch
from safetensors.torch import load_file

from convrun.recipe import load_recipe
from convrun.registry import registry
from convrun.training.run import run

MODEL = "{name: convnext_se, depths: [1, 1, 2, 1], dims: [4, 8, 8, 8], reduction: 4, drop_path_rate: 0.1}"


@pytest.fixture
def convnext_se(recipe_with):
    load_recipe(recipe_with("convnext_se.py"))
    return registry.find("model", "convnext_se")


def test_a_run_trains_its_gates(recipe_with, tmp_path):
    recipe = load_recipe(recipe_with("convnext_se.py", model=MODEL))
    outcome = run(recipe, tmp_path / "run", device="cpu")
    weights = load_file(outcome.folder / "weights" / "last.safetensors")
    gates = [name for name in weights if ".mlp.grn." in name and name.endswith("bias")]
    assert outcome.step == 8
    assert len(gates) == 2 * 5  # two linear layers in each of the five blocks
    assert all(weights[name].any() for name in gates)  # they began at 0


@pytest.mark.parametrize(
    "keys",
    [
        {"depths": (1, 1, 2, 1), "dims": (4, 8, 8, 8), "reduction": 4},
        {"depths": (2, 1, 1, 1), "dims": (6, 10, 12, 20)},
        {"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 8), "reduction": 1000},
    ],
)
def test_parameters_are_counted_without_building(convnext_se, keys):
    model = convnext_se.create(7, **keys)
    assert convnext_se.meta["parameters"](7, **keys) == sum(p.numel() for p in model.parameters())


def test_a_gate_at_its_start_halves_what_passes(convnext_se):
    # Biases of 0 and small weights: sigmoid(about 0) = about 1/2 for every channel.
    model = convnext_se.create(3, depths=(1, 1, 1, 1), dims=(4, 8, 8, 8))
    gate = model.get_submodule("stages.0.blocks.0.mlp.grn")
    x = torch.randn(2, 3, 3, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gate(x), x / 2, rtol=0.01, atol=0)


def test_a_gate_sees_the_whole_map_and_only_its_image(convnext_se):
    gate = convnext_se.create(3, depths=(1, 1, 1, 1), dims=(4, 8, 8, 8)).get_submodule("stages.0.blocks.0.mlp.grn")
    with torch.no_grad():
        gate.narrow.weight.fill_(1.0)
        gate.widen.weight.fill_(1.0)
    x = torch.ones(2, 3, 3, 16)
    changed = x.clone()
    changed[0, 2, 2, 5] = 10.0
    before, after = gate(x), gate(changed)
    assert (after[0, 0, 0] > before[0, 0, 0]).all()
    assert torch.equal(after[1], before[1])
