import io

import pytest
import torch
from torch import nn

from convrun.errors import CheckpointError
from convrun.training.ema import Ema


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def moved(model, by=1.0):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by


def test_covers_parameters_and_float_buffers_in_float32(model):
    ema = Ema(model.bfloat16(), 0.9)
    expected = {name for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    assert set(ema.state_dict()) == expected
    assert "1.num_batches_tracked" not in expected
    assert {tensor.dtype for tensor in ema.state_dict().values()} == {torch.float32}


def test_the_start_weighs_decay_to_the_steps(model):
    """Weights that stay at w after the start w0 have the average w + decay^n (w0 - w)."""
    model = model.double()
    ema = Ema(model, 0.9)
    start = model[0].weight.detach().float().clone()
    moved(model)
    for _ in range(10):
        ema.update()
    expected = start + 1 - 0.9**10
    torch.testing.assert_close(ema.state_dict()["0.weight"], expected, rtol=1e-5, atol=1e-6)


def test_at_0_9999_the_start_weighs_37_percent_after_10_000_steps():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    ema = Ema(model, 0.9999)
    nn.init.zeros_(model.weight)
    for _ in range(10_000):
        ema.update()
    # e^-1 = 0.3679; float32 rounds each step to 6e-8 of the average.
    assert ema.state_dict()["weight"].item() == pytest.approx(0.9999**10_000, rel=1e-3)


def test_swapped_in_computes_with_the_averages_and_gives_the_weights_back(model):
    ema = Ema(model, 0.5)
    before_move = model.eval()(torch.ones(2, 3))
    moved(model)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    identity = {name: p.data_ptr() for name, p in model.named_parameters()}
    with ema.swapped_in():
        assert torch.equal(model(torch.ones(2, 3)), before_move)
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == identity


def test_weights_come_back_when_the_evaluation_fails(model):
    ema = Ema(model, 0.5)
    moved(model)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="out of memory"), ema.swapped_in():
        raise RuntimeError("out of memory")
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


def test_training_goes_on_after_a_swap(model):
    ema = Ema(model, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ema.swapped_in(), torch.no_grad():
        model(torch.ones(2, 3))
    averages = {name: tensor.clone() for name, tensor in ema.state_dict().items()}
    before = model[0].weight.detach().clone()
    model(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, before)
    assert all(torch.equal(tensor, averages[name]) for name, tensor in ema.state_dict().items())


def test_goes_on_from_a_checkpoint_bit_for_bit(model):
    ema = Ema(model, 0.9)
    moved(model)
    ema.update()
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    again = Ema(model, 0.9)
    again.load_state_dict(torch.load(file, weights_only=True))
    for average in (ema, again):
        average.update()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in ema.state_dict().items())


def test_averages_of_another_model_are_refused_and_nothing_changes(model):
    ema = Ema(model, 0.9)
    before = {name: tensor.clone() for name, tensor in ema.state_dict().items()}
    zeros = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    for wrong in (zeros | {"2.weight": torch.zeros(7, 4)}, {n: t for n, t in zeros.items() if n != "2.weight"}):
        with pytest.raises(CheckpointError, match=r"does not fit the model.*2\.weight"):
            ema.load_state_dict(wrong)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ema.state_dict().items())
