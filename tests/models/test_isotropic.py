"""The isotropic ConvNeXt of section 3.3."""

from __future__ import annotations

import pytest
import torch

from convrun.models.isotropic import IsotropicConvNeXt
from convrun.models.shapes import IsotropicShape


@pytest.fixture(scope="module")
def model() -> IsotropicConvNeXt:
    torch.manual_seed(0)
    return IsotropicConvNeXt(IsotropicShape(depth=2, dim=32, patch_size=8), 5)


def test_resolution_stays_that_of_the_patches(model):
    features = model.blocks(model.stem(torch.zeros(1, 3, 48, 32)))
    assert features.shape == (1, 32, 6, 4)


def test_it_is_stem_blocks_pool_norm_and_head(model):
    images = torch.randn(2, 3, 32, 32)
    pooled = model.blocks(model.stem(images)).mean((-2, -1))
    normed = (pooled - pooled.mean(-1, keepdim=True)) / (pooled.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(model(images), normed @ model.head.weight.T + model.head.bias)


def test_there_is_a_layer_scale_only_if_asked_for(model):
    assert not any("gamma" in name for name, _ in model.named_parameters())
    scaled = IsotropicConvNeXt(IsotropicShape(2, 4, 8), 5, layer_scale_init=1e-6)
    gammas = [p for name, p in scaled.named_parameters() if name.endswith("gamma")]
    assert len(gammas) == 2
    assert all((gamma == 1e-6).all() for gamma in gammas)


def test_weights_start_truncated_normal_and_biases_zero(model):
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif weight.ndim > 1:
            # Five standard errors of an estimated standard deviation.
            assert weight.std().item() == pytest.approx(0.02, rel=5 / (2 * weight.numel()) ** 0.5), name


def test_get_classifier_is_the_head(model):
    assert model.get_classifier() is model.head
