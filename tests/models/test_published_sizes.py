"""Every model of the paper has exactly the released code's parameters, and its GMACs to 0.1 %, on the meta device.

Figures counted on the released model code; MACs are half the FLOPs of torch.utils.flop_counter, forward, batch 1.
"""

from __future__ import annotations

import pytest
import torch

from convrun.registry import registry
from convrun.validation.built_model import multiply_accumulates

# Parameters with 1,000 classes, with 21,841 classes; GMACs at 224, at 384.
STAGED = {
    "convnext_tiny": (28_589_128, 44_615_857, 4.456, 13.092),
    "convnext_small": (50_223_688, 66_250_417, 8.684, 25.518),
    "convnext_base": (88_591_464, 109_953_489, 15.355, 45.122),
    "convnext_large": (197_767_336, 229_799_953, 34.361, 100.978),
    "convnext_xlarge": (350_196_968, 392_900_177, 60.921, 179.029),
}
ISOTROPIC = {
    "convnext_isotropic_small": (22_308_712, 4.286),
    "convnext_isotropic_base": (87_083_752, 16.896),
    "convnext_isotropic_large": (305_942_504, 59.699),
}


def build(name: str, num_classes: int = 1000, **keys: object) -> torch.nn.Module:
    with torch.device("meta"):
        model: torch.nn.Module = registry.find("model", name).create(num_classes, **keys)
    return model


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", STAGED)
def test_staged_models_have_the_released_parameters(name):
    with_1000, with_21841, _, _ = STAGED[name]
    assert count(build(name)) == with_1000
    assert count(build(name, 21_841)) == with_21841


@pytest.mark.parametrize("name", STAGED)
def test_staged_models_have_the_released_gmacs(name):
    model = build(name)
    for size, gmacs in zip((224, 384), STAGED[name][2:], strict=True):
        assert multiply_accumulates(model, size) / 1e9 == pytest.approx(gmacs, rel=1e-3)


@pytest.mark.parametrize("name", ISOTROPIC)
def test_isotropic_models_have_the_released_parameters_and_gmacs(name):
    parameters, gmacs = ISOTROPIC[name]
    model = build(name)
    assert count(model) == parameters
    assert multiply_accumulates(model, 224) / 1e9 == pytest.approx(gmacs, rel=1e-3)


@pytest.mark.parametrize("name", [*STAGED, *ISOTROPIC])
def test_the_counts_without_torch_are_the_same(name):
    formula = registry.find("model", name).meta["parameters"]
    assert formula(1000) == count(build(name))


def test_drop_path_rises_linearly_over_the_blocks():
    """Block i of n: linspace(0, rate, n)[i]; counted over all stages in the staged models."""
    staged = registry.find("model", "convnext").create(3, depths=(1, 1, 2, 1), dims=(4, 4, 4, 4), drop_path_rate=0.4)
    isotropic = registry.find("model", "convnext_isotropic").create(3, depth=5, dim=4, drop_path_rate=0.4)
    for model in (staged, isotropic):
        rates = [getattr(m.drop_path, "drop_prob", 0.0) for m in model.modules() if type(m).__name__ == "ConvNeXtBlock"]
        assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
