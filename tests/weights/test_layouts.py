import pytest
import timm
import torch
import torchvision
import transformers
from torchvision.models.convnext import CNBlockConfig

from convrun.errors import ModelError
from convrun.registry import registry
from convrun.weights.layouts import layouts, renamed
from convrun.weights.matching import matched
from convrun.weights.tables import TABLES
from tests.weights.other_names import in_layout

DEPTHS, DIMS = (2, 1, 3, 1), (8, 16, 24, 32)
V1, V2 = {"layer_scale_init": 1e-6}, {"layer_scale_init": None, "use_grn": True}


def in_torchvision():
    config = [CNBlockConfig(a, b, n) for a, b, n in zip(DIMS, (*DIMS[1:], None), DEPTHS, strict=True)]
    return torchvision.models.convnext.ConvNeXt(config, num_classes=5)


def in_transformers(generation, **config):
    # 1e-12 is the library's default for the final norm alone; published checkpoints keep it.
    config = {"hidden_sizes": list(DIMS), "depths": list(DEPTHS), "num_labels": 5, "layer_norm_eps": 1e-6, **config}
    if generation == V1:
        return transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**config))
    return transformers.ConvNextV2ForImageClassification(transformers.ConvNextV2Config(**config))


def in_timm(generation, conv_mlp=False):
    return timm.models.convnext.ConvNeXt(
        depths=DEPTHS, dims=DIMS, num_classes=5, ls_init_value=generation["layer_scale_init"],
        use_grn="use_grn" in generation, conv_mlp=conv_mlp,
    )  # fmt: skip


def read(state, model):
    """The layout of a file's names, and its tensors in convrun's."""
    own = model.state_dict()
    match = matched(state, own, [name for name in own if not name.startswith("head.fc")])
    assert (match.prefix, match.outside) == ("", {})
    return match.layout.removesuffix(" layout"), match.tensors


LIBRARIES = [
    ("torchvision", V1, in_torchvision),
    ("transformers", V1, lambda: in_transformers(V1)),
    ("transformers", V2, lambda: in_transformers(V2)),
    ("timm", V1, lambda: in_timm(V1)),
    ("timm", V2, lambda: in_timm(V2)),
]
IDS = [f"{name}-{'V2' if generation == V2 else 'V1'}" for name, generation, _ in LIBRARIES]


@pytest.mark.parametrize(("layout", "generation", "create"), LIBRARIES, ids=IDS)
def test_convruns_weights_give_equal_logits_in_the_library_and_back(layout, generation, create, build, enliven, logits):
    ours, theirs = build(**generation), enliven(create(), seed=7)
    expected = logits(ours)
    assert (expected - logits(theirs)).abs().max() > 0.1
    state = in_layout(ours.state_dict(), layout)
    theirs.load_state_dict(state, strict=True)
    torch.testing.assert_close(logits(theirs), expected, atol=1e-5, rtol=1e-5)

    back = build(seed=9, **generation)
    found, tensors = read(theirs.state_dict(), back)
    assert found == ("the model's own names" if layout == "timm" else layout)
    back.load_state_dict(tensors, strict=True)
    assert all(torch.equal(tensor, ours.state_dict()[key]) for key, tensor in back.state_dict().items())


def test_the_released_layout_is_timms_own_reading_of_it(build):
    """The released checkpoints are read by timm too; both translations must agree, GRN's axes included."""
    for generation in (V1, V2):
        ours = build(**generation)
        released = in_layout(ours.state_dict(), "released")
        assert "stages.2.1.pwconv1.weight" in released
        if generation == V2:
            assert released["stages.2.1.grn.gamma"].shape == (1, 1, 1, 4 * 24)
        theirs = timm.models.convnext.checkpoint_filter_fn(released, in_timm(generation))
        assert theirs.keys() == ours.state_dict().keys()
        assert all(torch.equal(tensor, ours.state_dict()[key]) for key, tensor in theirs.items())


def test_one_by_one_convolutions_become_linear_layers_and_back(build, enliven, logits):
    conv = enliven(in_timm(V2, conv_mlp=True))
    released = in_layout(conv.state_dict(), "released")
    assert released["stages.0.1.pwconv2.weight"].shape == (8, 32)
    linear = build(seed=3, **V2)
    linear.load_state_dict(read(released, linear)[1], strict=True)
    torch.testing.assert_close(logits(linear), logits(conv), atol=1e-5, rtol=1e-5)


def test_isotropic_names_go_there_and_back():
    with torch.device("meta"):
        model = registry.find("model", "convnext_isotropic_large").create(1000)
    released = in_layout(model.state_dict(), "released")
    assert {"stem.bias", "blocks.35.dwconv.weight", "blocks.0.gamma", "norm.weight", "head.bias"} <= released.keys()
    layout, tensors = read(released, model)
    assert (layout, tensors.keys()) == ("released", model.state_dict().keys())


def test_a_bare_model_of_transformers_is_read_without_its_classifier(build):
    ours = build(**V1)
    bare = transformers.ConvNextModel(transformers.ConvNextConfig(hidden_sizes=list(DIMS), depths=list(DEPTHS)))
    layout, tensors = read(bare.state_dict(), ours)
    assert layout == "transformers"
    assert tensors.keys() == ours.state_dict().keys() - {"head.fc.weight", "head.fc.bias"}


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_base", "convnext_xlarge", "convnextv2_tiny"])
def test_full_size_names_and_shapes_are_timms(name):
    with torch.device("meta"):
        ours, theirs = registry.find("model", name).create(1000), timm.create_model(name)
    assert shapes(read(in_layout(ours.state_dict(), "released"), ours)[1]) == shapes(theirs.state_dict())


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_full_size_names_and_shapes_are_torchvisions(size):
    with torch.device("meta"):
        ours = registry.find("model", f"convnext_{size}").create(1000)
        theirs = getattr(torchvision.models, f"convnext_{size}")()
    assert shapes(in_layout(ours.state_dict(), "torchvision")) == shapes(theirs.state_dict())
    assert shapes(read(theirs.state_dict(), ours)[1]) == shapes(ours.state_dict())


@pytest.mark.parametrize(("name", "kind"), [("convnext_tiny", "ConvNext"), ("convnextv2_tiny", "ConvNextV2")])
def test_full_size_names_and_shapes_are_transformers(name, kind):
    config = getattr(transformers, f"{kind}Config")(num_labels=1000)  # the default shape is tiny
    with torch.device("meta"):
        ours = registry.find("model", name).create(1000)
        theirs = getattr(transformers, f"{kind}ForImageClassification")(config)
    assert shapes(in_layout(ours.state_dict(), "transformers")) == shapes(theirs.state_dict())


def shapes(state):
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def test_names_of_no_layout_are_refused_with_a_sample(build):
    state = timm.create_model("resnet18", num_classes=2).state_dict()
    with pytest.raises(ModelError, match=r"no layout convrun knows \(timm, .*begin with conv1\.weight, bn1\.weight"):
        read(state, build())
    assert layouts() == ["timm", "released", "torchvision", "fcmae", "transformers", "mmpretrain"]


def test_two_tensors_of_one_name_are_refused():
    state = {"downsample_layers.0.0.weight": torch.zeros(1), "stem.0.weight": torch.zeros(1)}
    released = next(table for table in TABLES if table.layout == "released")
    with pytest.raises(ModelError, match=r"two tensors would be called stem\.0\.weight"):
        renamed(state, released)


def test_dinov3_of_transformers_is_read_in_both_its_spellings(build):
    """The hub's files say `stages.…`, those that the library saves today `model.stages.…`."""
    config = transformers.DINOv3ConvNextConfig(hidden_sizes=list(DIMS), depths=list(DEPTHS))
    new = transformers.DINOv3ConvNextModel(config).state_dict()
    hub = {key.removeprefix("model."): tensor for key, tensor in new.items()}
    ours = build(**V1)
    for state in (new, hub):
        layout, tensors = read(state, ours)
        assert layout == "transformers"
        assert shapes(tensors) == shapes({k: t for k, t in ours.state_dict().items() if not k.startswith("head.fc")})


def test_sparse_kernels_are_read_as_the_released_code_reads_them(build):
    """models/convnextv2_sparse.py's names; positions become rows and columns as in its utils.remap_checkpoint_keys."""
    ours = build(**V2)
    body = {key: tensor for key, tensor in ours.state_dict().items() if not key.startswith("head.")}
    sparse = in_layout(body, "fcmae")
    for stage in (1, 2, 3):  # both layers of a downsampling have one name in convrun's layout, and two in this
        layer = f"downsample_layers.{stage}.1"
        sparse[f"{layer}.kernel"] = sparse.pop(f"{layer}.ln.weight").permute(3, 2, 1, 0).flatten(0, 1)
        sparse[f"{layer}.bias"] = sparse.pop(f"{layer}.ln.bias")[None]
    assert {"downsample_layers.1.0.ln.weight", "stages.0.1.pwconv1.linear.bias"} <= sparse.keys()
    depthwise, between = sparse["stages.0.0.dwconv.kernel"], sparse["downsample_layers.1.1.kernel"]
    assert (depthwise.shape, between.shape) == ((49, 8), (4, 8, 16))
    layout, tensors = read(sparse, ours)
    assert layout == "fcmae"
    for kernel, name in ((depthwise[:, None], "stages.0.blocks.0.conv_dw"), (between, "stages.1.downsample.1")):
        side = int(kernel.shape[0] ** 0.5)
        expected = kernel.permute(2, 1, 0).reshape(kernel.shape[2], kernel.shape[1], side, side).transpose(3, 2)
        assert torch.equal(tensors[f"{name}.weight"], expected)
    assert all(torch.equal(tensors[name].reshape(t.shape), t) for name, t in body.items())
