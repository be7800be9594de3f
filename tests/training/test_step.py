"""The parts of a step that need no loop: norms, clipping, buffers."""

import pytest
import torch
from torch import nn

from convrun.distributed.group import Group
from convrun.distributed.strategy import Strategy
from convrun.training.step import Buffers, gradient_norms

ALONE = Strategy(nn.Identity(), Group())


@pytest.fixture
def groups():
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2, 2, 2), (7,))]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return [{"params": parameters[:2]}, {"params": parameters[2:3]}, {"params": parameters[3:]}]


def test_norms_are_those_of_the_groups_and_of_all(groups):
    norms = gradient_norms(groups, ALONE)
    flat = [torch.cat([p.grad.flatten() for p in group["params"]]) for group in groups]
    wanted = [torch.cat(flat).norm(), *(gradient.norm() for gradient in flat)]
    torch.testing.assert_close(norms, torch.stack(wanted))


def test_the_whole_norm_and_clipping_are_torchs_bit_for_bit(groups):
    parameters = [parameter for group in groups for parameter in group["params"]]
    before = [p.grad.clone() for p in parameters]
    wanted = nn.utils.clip_grad_norm_(parameters, 0.5)
    clipped = [p.grad.clone() for p in parameters]
    for parameter, gradient in zip(parameters, before, strict=True):
        parameter.grad = gradient
    norms = gradient_norms(groups, ALONE)
    nn.utils.clip_grads_with_norm_(parameters, 0.5, norms[0])
    assert torch.equal(norms[0], wanted)
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(parameters, clipped, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_shows_in_its_group_and_in_the_whole(groups, value):
    groups[1]["params"][0].grad[1, 0, 1] = value
    assert torch.isfinite(gradient_norms(groups, ALONE)).tolist() == [False, True, False, True]


def test_parameters_without_a_gradient_count_as_zero(groups):
    groups[1]["params"][0].grad = None
    assert gradient_norms(groups, ALONE)[2] == 0
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = None
    assert gradient_norms(groups, ALONE).tolist() == [0, 0, 0, 0]


def test_the_buffers_come_back_as_they_were():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model(torch.randn(2, 3, 4, 4))
    before = [buffer.clone() for buffer in model.buffers()]
    buffers = Buffers(model)
    buffers.keep()
    model(torch.full((2, 3, 4, 4), float("nan")))
    assert not torch.isfinite(model[1].running_mean).all()
    buffers.restore()
    assert [torch.equal(a, b) for a, b in zip(model.buffers(), before, strict=True)] == [True] * 3
