import json
import re
from pathlib import Path

import pytest
import timm
import torch
from timm.models.convnext import ConvNeXt
from torch import nn

from convrun.errors import ModelError
from convrun.training.parameter_groups import depth_levels, is_undecayed, parameter_groups

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "param_groups_3-3-27-3.json").read_text())
WEIGHT_DECAY = 0.05

# The released code's names -> timm's.
NAMES = [
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
]


def timm_name(released):
    for pattern, replacement in NAMES:
        released = re.sub(pattern, replacement, released)
    return released


def convnext(depths=(3, 3, 27, 3), **keys):
    with torch.device("meta"):
        return ConvNeXt(num_classes=10, depths=depths, dims=(4, 8, 16, 32), **keys)


def isotropic(depth):
    model = nn.Module()
    model.stem = nn.Conv2d(3, 4, 16, 16)
    model.blocks = nn.Sequential(*[nn.Linear(4, 4) for _ in range(depth)])
    model.norm, model.head = nn.LayerNorm(4), nn.Linear(4, 2)
    return model


def by_name(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: (g["lr_scale"], g.get("weight_decay", WEIGHT_DECAY)) for g in groups for p in g["params"]}


@pytest.mark.parametrize("decay", GOLDEN)
def test_groups_are_those_of_the_released_code(decay):
    expected = {timm_name(name): (pytest.approx(scale, rel=1e-12), wd) for name, (scale, wd) in GOLDEN[decay].items()}
    model = convnext()
    assert by_name(model, parameter_groups(model, float(decay))) == expected


@pytest.mark.parametrize("keys", [{}, {"use_grn": True, "ls_init_value": None, "conv_mlp": True}])
@pytest.mark.parametrize("depths", [(3, 3, 9, 3), (2, 2, 6, 2), (2, 2, 8, 2), (1, 1, 1, 1), (3, 3, 27, 3)])
@pytest.mark.parametrize("decay", [1.0, 0.8])
def test_every_parameter_is_in_one_group(depths, keys, decay):
    model = convnext(depths, **keys)
    groups = parameter_groups(model, decay)
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))
    assert [name for group in groups for name in group["names"]] == list(by_name(model, groups))


@pytest.mark.parametrize(
    ("depths", "levels", "stage_2"),
    [
        ((3, 3, 27, 3), 14, [3 + j // 3 for j in range(27)]),
        ((3, 3, 9, 3), 8, [3, 3, 3, 4, 4, 4, 5, 5, 5]),
        ((2, 2, 6, 2), 7, [3, 3, 3, 4, 4, 4]),
        ((2, 2, 8, 2), 8, [3, 3, 3, 4, 4, 4, 5, 5]),
    ],
)
def test_levels_follow_the_depth_without_gaps(depths, levels, stage_2):
    found = depth_levels(convnext(depths))
    assert set(found.values()) == set(range(levels))
    assert [found[f"stages.2.blocks.{j}.norm.weight"] for j in range(depths[2])] == stage_2
    ends = ["stem.0.weight", "stages.0.blocks.1.gamma", "stages.1.downsample.0.weight", "stages.1.blocks.0.gamma"]
    assert [found[name] for name in ends] == [0, 1, 2, 2]
    tops = ["stages.2.downsample.1.weight", "stages.3.downsample.0.weight", "stages.3.blocks.1.gamma"]
    assert [found[name] for name in tops] == [3, levels - 2, levels - 2]
    assert found["head.norm.weight"] == found["head.fc.bias"] == levels - 1


@pytest.mark.parametrize(
    ("depth", "levels"), [(18, [1 + j * 2 // 3 for j in range(18)]), (36, [1 + j // 3 for j in range(36)]), (2, [1, 2])]
)
def test_isotropic_blocks_share_out_at_most_twelve_levels(depth, levels):
    found = depth_levels(isotropic(depth))
    assert [found[f"blocks.{j}.weight"] for j in range(depth)] == levels
    assert found["stem.weight"] == 0
    assert {found[name] for name in ("norm.weight", "head.weight", "head.bias")} == {max(levels) + 1}


def test_grn_does_not_decay_even_when_it_is_four_dimensional():
    model = convnext((1, 1, 1, 1), use_grn=True)
    grn = model.stages[0].blocks[0].mlp.grn
    grn.weight = nn.Parameter(torch.zeros(1, 1, 1, 16, device="meta"))
    undecayed = {n for g in parameter_groups(model) if g.get("weight_decay") == 0 for n in g["names"]}
    assert {n for n, _ in model.named_parameters() if ".grn." in n} <= undecayed
    assert "stages.0.blocks.0.mlp.fc1.weight" not in undecayed


def test_what_a_model_of_timm_lists_itself_does_not_decay():
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    assert is_undecayed(model, "pos_embed")
    assert not is_undecayed(model, "head.weight")


def test_without_layer_decay_there_are_two_groups():
    first, second = parameter_groups(convnext((1, 1, 1, 1)))
    assert "weight_decay" not in first
    assert second["weight_decay"] == 0.0
    assert first["lr_scale"] == second["lr_scale"] == 1.0


def test_groups_come_in_the_same_order_from_stem_to_head():
    groups = parameter_groups(convnext((2, 2, 6, 2)), 0.5)
    assert [g["label"] for g in groups] == [f"level {n}, {what}" for n in range(7) for what in ("decay", "no decay")]
    assert [g["lr_scale"] for g in groups[::2]] == [0.5**n for n in range(6, -1, -1)]


def test_frozen_parameters_are_left_out():
    model = convnext((1, 1, 1, 1))
    model.stem.requires_grad_(False)
    names = [name for group in parameter_groups(model, 0.5) for name in group["names"]]
    assert not [name for name in names if name.startswith("stem.")]
    assert "head.fc.weight" in names


@pytest.mark.parametrize("name", ["resnet18", "mixer_s32_224"])
def test_layer_decay_of_other_models_is_refused(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=10)
    with pytest.raises(ModelError, match=r"layer_decay is not defined for .*set optimizer\.layer_decay to 1"):
        parameter_groups(model, 0.8)
    assert sum(len(g["params"]) for g in parameter_groups(model)) == len(list(model.parameters()))


def test_a_parameter_of_unknown_depth_is_named():
    model = isotropic(3)
    model.extra = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"the parameter extra\.weight of Module"):
        parameter_groups(model, 0.8)
