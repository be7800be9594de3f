"""Activation checkpointing changes memory, and no result."""

import pytest
import torch
from torch import nn

from convrun.errors import ModelError
from convrun.models.isotropic import IsotropicConvNeXt
from convrun.models.shapes import IsotropicShape
from convrun.training.activation_checkpointing import checkpoint_activations

CHECKPOINTING = "distributed.activation_checkpointing=true"


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_every_number_is_the_same_bit_for_bit(make_loop, precision):
    plain, checkpointed = (make_loop(f"training.precision={precision}", *more) for more in ((), (CHECKPOINTING,)))
    plain.run()
    checkpointed.run()
    assert len(plain.recorder.losses()) > 3
    assert checkpointed.recorder.losses() == plain.recorder.losses()
    for name, value in plain.state.model.state_dict().items():
        assert torch.equal(checkpointed.state.model.state_dict()[name], value), name


def model():
    return IsotropicConvNeXt(IsotropicShape(3, 8, 4), 10, drop_path_rate=0.5)


def test_a_block_is_computed_twice_for_gradients_and_once_without():
    found, calls = model(), []
    block = found.blocks[1].mlp.register_forward_hook(lambda *_: calls.append(1))
    checkpoint_activations(found)
    found(torch.randn(2, 3, 8, 8)).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        found(torch.randn(2, 3, 8, 8))
    assert len(calls) == 3
    block.remove()


def test_names_of_weights_stay():
    found, names = model(), list(model().state_dict())
    checkpoint_activations(found)
    assert list(found.state_dict()) == names


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ModelError, match=r"block by block, but Sequential has none named blocks\.N; set distributed"):
        checkpoint_activations(nn.Sequential(nn.Linear(2, 2)))


def test_running_statistics_that_would_count_twice_are_refused():
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    found = nn.ModuleDict({"blocks": nn.Sequential(block)})
    with pytest.raises(ModelError, match=r"a second pass through blocks\.0\.1 would count a batch twice"):
        checkpoint_activations(found)
