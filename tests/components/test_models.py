import pytest
import timm
import torch

from convrun.errors import KeyProblem
from convrun.registry import registry

STAGED = [c.name for c in registry.all("model", "convnext_*") if "isotropic" not in c.name]
STAGED += [c.name for c in registry.all("model", "convnextv2_*")]

# The released model code's counts at 1,000 and 21,841 classes.
COUNTS = {
    "convnext_tiny": (28_589_128, 44_615_857),
    "convnext_small": (50_223_688, 66_250_417),
    "convnext_base": (88_591_464, 109_953_489),
    "convnext_large": (197_767_336, 229_799_953),
    "convnext_xlarge": (350_196_968, 392_900_177),
}
# ConvNeXt V2, arXiv:2301.00808, table of fine-tuned models, in millions.
MILLIONS = {"atto": 3.7, "femto": 5.2, "pico": 9.1, "nano": 15.6, "tiny": 28.6, "base": 89, "large": 198, "huge": 660}


def on_meta(name, num_classes=10, **keys):
    with torch.device("meta"):
        return registry.find("model", name).create(num_classes, **keys)


def counted(model):
    return sum(p.numel() for p in model.parameters())


def formula(name, num_classes, **keys):
    return registry.find("model", name).meta["parameters"](num_classes, **keys)


def test_all_sizes_are_there():
    assert len(STAGED) == 17


@pytest.mark.parametrize("name", STAGED)
def test_weights_have_timms_names_and_shapes(name):
    with torch.device("meta"):
        expected = timm.create_model(name, num_classes=10)
    model = on_meta(name)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in expected.state_dict().items()}
    assert formula(name, 10) == counted(model)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_the_released_codes(name):
    assert (formula(name, 1000), formula(name, 21841)) == COUNTS[name]
    assert counted(on_meta(name, 21841)) == COUNTS[name][1]


@pytest.mark.parametrize("size", MILLIONS)
def test_v2_parameter_counts_are_the_papers(size):
    assert formula(f"convnextv2_{size}", 1000) / 1e6 == pytest.approx(MILLIONS[size], abs=0.5 if size in (
        "base", "large", "huge") else 0.05)  # fmt: skip


@pytest.mark.parametrize("name", ["convnext_atto", "convnext_tiny"])
def test_layer_scale_can_be_left_out(name):
    model = on_meta(name, layer_scale_init=None)
    assert not [n for n, _ in model.named_parameters() if n.endswith("gamma")]
    assert formula(name, 10, layer_scale_init=None) == counted(model) < formula(name, 10)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"patch_size": 1},
        {"patch_size": 2},
        {"patch_size": 16},
        {"kernel_size": 3},
        {"layer_scale_init": None},
        {"use_grn": True},
        {"use_grn": True, "layer_scale_init": None, "kernel_size": 5, "patch_size": 8},
    ],
)
def test_free_shape_is_counted_and_runs(keys):
    shape = {"depths": (1, 2, 3, 1), "dims": (4, 8, 8, 20), **keys}
    assert formula("convnext", 7, **shape) == counted(on_meta("convnext", 7, **shape))
    model = on_meta("convnext", 7, **shape)
    side = 8 * keys.get("patch_size", 4)
    images = torch.empty(2, 3, side, side, device="meta")
    assert model(images).shape == (2, 7)
    # Three halvings after the stem, whatever its patch size; no dilation.
    assert model.forward_features(images).shape == (2, 20, 1, 1)
    assert {m.dilation for m in model.modules() if isinstance(m, torch.nn.Conv2d)} == {(1, 1)}


def test_free_shape_is_the_named_model():
    free = on_meta("convnext", depths=(3, 3, 9, 3), dims=(96, 192, 384, 768))
    named = on_meta("convnext_tiny")
    assert {k: v.shape for k, v in free.state_dict().items()} == {k: v.shape for k, v in named.state_dict().items()}


def tiny(**keys):
    torch.manual_seed(0)
    return registry.find("model", "convnext").create(5, depths=(1, 1, 2, 1), dims=(8, 8, 8, 8), **keys)


def test_initial_weights_are_truncated_normal_with_zero_biases():
    """Std 0.02 for convolutions and linear layers (arXiv:2201.03545's code), a stem of another size included."""
    for model in (tiny(), tiny(patch_size=8)):
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                assert not weight.any(), name
            elif weight.ndim > 1 and weight.numel() >= 300:
                assert weight.std().item() == pytest.approx(0.02, rel=0.2), name


def test_layer_scale_starts_at_its_key():
    gammas = [p for n, p in tiny(layer_scale_init=0.25).named_parameters() if n.endswith("gamma")]
    assert len(gammas) == 5
    assert all((gamma == 0.25).all() for gamma in gammas)


def test_drop_path_rises_linearly_over_all_blocks():
    model = on_meta("convnext_tiny", drop_path_rate=0.4)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.4 * i / 17 for i in range(18)], abs=1e-7)


@pytest.mark.parametrize("conv_mlp", [False, True])
def test_a_block_is_the_papers(conv_mlp):
    """Depthwise 7x7, LayerNorm (eps 1e-6), linear x4, exact GELU, linear, layer scale, add (arXiv:2201.03545)."""
    name = "convnext_atto" if conv_mlp else "convnext"
    shape = {} if conv_mlp else {"depths": (1, 1, 1, 1), "dims": (40, 40, 40, 40)}
    model = registry.find("model", name).create(2, layer_scale_init=0.5, **shape)
    block = model.stages[0].blocks[0]
    torch.nn.init.normal_(block.conv_dw.bias)
    x = torch.randn(2, 40, 9, 9, generator=torch.Generator().manual_seed(0)) * 1e-3
    y = torch.nn.functional.conv2d(x, block.conv_dw.weight, block.conv_dw.bias, padding=3, groups=40).movedim(1, -1)
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
    y = y @ block.mlp.fc1.weight.flatten(1).T
    y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
    y = 0.5 * (y @ block.mlp.fc2.weight.flatten(1).T)
    torch.testing.assert_close(block(x), x + y.movedim(-1, 1), rtol=1e-5, atol=1e-6)


def test_every_norm_has_the_papers_epsilon():
    for name in ("convnext_tiny", "convnext_atto", "convnextv2_tiny"):
        assert {m.eps for m in on_meta(name).modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"depths": (1, 1, 1), "dims": (8, 8, 8, 8)}, "depths"),
        ({"depths": (1, 1, 1, 1), "dims": (8,) * 5}, "dims"),
        ({"depths": (1, 1, 1, 1), "dims": (8,) * 4, "kernel_size": 4}, "kernel_size"),
    ],
)
def test_a_free_shape_that_cannot_be_is_refused_without_building(keys, key):
    component = registry.find("model", "convnext")
    for call in (lambda: component.meta["check"](**keys), lambda: component.create(10, **keys)):
        with pytest.raises(KeyProblem) as caught:
            call()
        assert caught.value.key == key


def test_a_model_of_timm_takes_its_options():
    model = on_meta("timm/resnet18", 7, drop_rate=0.1, options={"stem_width": 32, "stem_type": "deep"}).eval()
    assert model(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 7)
    assert model.conv1[0].out_channels == 32
    assert model.drop_rate == 0.1


@pytest.mark.parametrize(
    ("name", "keys", "key", "message"),
    [
        ("timm/resnet18x", {}, "name", "did you mean timm/resnet18"),
        ("timm/resnet18.a1_in1k", {}, "name", "write timm/resnet18 and name the weights under init"),
        ("timm/hf-hub:someone/model", {}, "name", "no model named"),
        ("timm/vgg11", {"drop_path_rate": 0.1}, "drop_path_rate", "refuses drop_path_rate"),
        ("timm/resnet18", {"options": {"no_such": 1}}, "options", "no_such"),
        ("timm/resnet18", {"options": {"pretrained": True}}, "options", "weights come from init"),
    ],
)
def test_what_timm_does_not_have_is_refused_by_key(name, keys, key, message):
    with pytest.raises(KeyProblem, match=message) as caught:
        on_meta(name, **keys)
    assert caught.value.key == key
