"""The border is where it is said to be: the real model, on the meta device, one pixel below and at it."""

import pytest
import torch

from convrun.registry import registry

FREE = {"depths": (1, 1, 1, 1), "dims": (4, 4, 4, 4)}
NAMED = [c.name for c in registry.all("model") if not c.is_family and not c.name.endswith(("convnext", "isotropic"))]
MODELS = [
    *((name, {}) for name in NAMED),
    *(("convnext", {**FREE, "patch_size": patch}) for patch in (1, 2, 3, 4, 5, 8)),
    ("convnext", {**FREE, "patch_size": 2, "kernel_size": 31, "use_grn": True}),
    *(("convnext_isotropic", {"depth": 1, "dim": 4, "patch_size": patch}) for patch in (1, 3, 14, 16)),
]


def takes(model, size):
    try:
        model.train()(torch.empty(2, 3, size, size, device="meta")).sum().backward()
        model.eval()(torch.empty(1, 3, size, size, device="meta"))
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize(("name", "keys"), MODELS, ids=lambda value: str(value))
def test_the_smallest_input_works_and_a_pixel_less_does_not(name, keys):
    component = registry.find("model", name)
    smallest = component.ask("smallest_input", **keys)
    with torch.device("meta"):
        model = component.create(3, **keys)
    assert takes(model, smallest)
    assert not takes(model, smallest - 1)


def test_the_smallest_image_can_be_trained_on():
    """GRN's statistics over 1 × 1 pixel have finite gradients."""
    model = registry.find("model", "convnext").create(3, **FREE, patch_size=1, use_grn=True, layer_scale_init=None)
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
