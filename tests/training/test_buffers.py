import torch
from torch import nn

from convrun.training.step import Buffers


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
