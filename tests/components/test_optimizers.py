import io

import pytest
import torch

from convrun.errors import KeyProblem
from convrun.registry import registry

NAMES = ["adamw", "sgd", "adamp", "lion", "lamb", "timm/nadamw", "timm/lookahead_adamw"]


def groups():
    torch.manual_seed(0)
    decayed, undecayed = torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(4))
    return [
        {"params": [decayed], "lr_scale": 0.5, "names": ["fc.weight"], "label": "level 0, decay"},
        {"params": [undecayed], "lr_scale": 1.0, "weight_decay": 0.0, "names": ["fc.bias"], "label": "level 1"},
    ]


def stepped(optimizer, steps=2):
    for number in range(steps):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, 0.1 * (number + 1))
        optimizer.step()
    return [p.detach().clone() for g in optimizer.param_groups for p in g["params"]]


@pytest.mark.parametrize("name", NAMES)
def test_groups_keep_their_decay_and_scale_through_a_checkpoint(name):
    component = registry.find("optimizer", name)
    optimizer = component.create(groups(), lr=0.01, weight_decay=0.3)
    stepped(optimizer)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = component.create(groups(), lr=0.5, weight_decay=0.7)
    again.load_state_dict(torch.load(file, weights_only=True))
    for loaded in (optimizer, again):
        assert [g["weight_decay"] for g in loaded.param_groups] == [0.3, 0.0]
        assert [g["lr_scale"] for g in loaded.param_groups] == [0.5, 1.0]
        assert [g["names"] for g in loaded.param_groups] == [["fc.weight"], ["fc.bias"]]


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_moves_only_the_groups_without_their_own(name):
    build = registry.find("optimizer", name).create
    with_decay = stepped(build(groups(), lr=0.01, weight_decay=0.3))
    without = stepped(build(groups(), lr=0.01, weight_decay=0.0))
    assert not torch.equal(with_decay[0], without[0])
    assert torch.equal(with_decay[1], without[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_learning_rate_of_zero_moves_nothing(name):
    """The first update of a warm-up has lr exactly 0."""
    optimizer = registry.find("optimizer", name).create(groups(), lr=0.01, weight_decay=0.3)
    before = [p.detach().clone() for g in optimizer.param_groups for p in g["params"]]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    assert all(torch.equal(a, b) for a, b in zip(before, stepped(optimizer, 1), strict=True))


def test_adamw_first_step_is_the_papers():
    """Bias correction makes the first step lr × sign(gradient), after the decay of lr × weight_decay × weight."""
    before = [g["params"][0].detach().clone() for g in groups()]
    optimizer = registry.find("optimizer", "adamw").create(groups(), lr=0.01, weight_decay=0.3)
    after = stepped(optimizer, 1)
    torch.testing.assert_close(after[0], before[0] * (1 - 0.01 * 0.3) - 0.01)
    torch.testing.assert_close(after[1], before[1] - 0.01)


def test_lamb_does_not_clip_gradients_by_itself():
    """By default timm clips at norm 1. Here the norms of the two steps are 0.4 and 1.2, or 100 times that."""
    results = []
    for scale in (1.0, 100.0):
        optimizer = registry.find("optimizer", "lamb").create(groups(), lr=0.01, eps=1e-12)
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        for gradient in (0.1 * scale, 0.3 * scale):
            for parameter in parameters:
                parameter.grad = torch.full_like(parameter, gradient)
            optimizer.step()
        results.append([p.detach().clone() for p in parameters])
    # Adam forgets the scale of all gradients, unless clipping made the two steps' gradients alike.
    for small, large in zip(*results, strict=True):
        torch.testing.assert_close(small, large, rtol=1e-5, atol=1e-7)


def test_options_reach_timms_optimizer():
    optimizer = registry.find("optimizer", "timm/nadamw").create(groups(), lr=0.01, options={"eps": 1e-3})
    assert optimizer.param_groups[0]["eps"] == 1e-3


@pytest.mark.parametrize(
    ("name", "keys", "key", "message"),
    [
        ("sgd", {"momentum": 0.0, "nesterov": True}, "nesterov", "no effect"),
        ("timm/adamv", {}, "name", "did you mean timm/adam"),
        ("timm/foo_adamw", {}, "name", "no optimizer named 'foo_adamw'"),
        ("timm/adahessian", {}, "name", "second derivatives"),
        ("timm/nadamw", {"options": {"no_such": 1}}, "options", "no_such"),
    ],
)
def test_refuses_by_the_key_that_is_wrong(name, keys, key, message):
    with pytest.raises(KeyProblem, match=message) as caught:
        registry.find("optimizer", name).create(groups(), lr=0.1, **keys)
    assert caught.value.key == key
