import pytest
import timm
import torch
import torchvision
import transformers
from torchvision.models.convnext import CNBlockConfig

from convrun.errors import ModelError
from convrun.registry import registry
from convrun.weights.layouts import detect, from_convrun, layouts, to_convrun

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
    state = from_convrun(ours.state_dict(), layout)
    theirs.load_state_dict(state, strict=True)
    torch.testing.assert_close(logits(theirs), expected, atol=1e-5, rtol=1e-5)

    assert detect(theirs.state_dict()) == layout
    back = build(seed=9, **generation)
    back.load_state_dict(to_convrun(theirs.state_dict()), strict=True)
    assert all(torch.equal(tensor, ours.state_dict()[key]) for key, tensor in back.state_dict().items())


@pytest.mark.parametrize("generation", [V1, V2], ids=["V1", "V2"])
def test_a_chain_through_every_layout_gives_equal_logits(generation, build, logits):
    ours = build(**generation)
    state, expected = ours.state_dict(), logits(ours)
    chain = ["released", "timm", "transformers", "released"] + ["torchvision", "released"] * (generation == V1)
    for layout in chain:
        state = from_convrun(to_convrun(state), layout)
        assert detect(state) == layout
    other = build(seed=9, **generation)
    other.load_state_dict(to_convrun(state), strict=True)
    torch.testing.assert_close(logits(other), expected, atol=1e-5, rtol=1e-5)


def test_the_released_layout_is_timms_own_reading_of_it(build):
    """The released checkpoints are read by timm too; both translations must agree, GRN's axes included."""
    for generation in (V1, V2):
        ours = build(**generation)
        released = from_convrun(ours.state_dict(), "released")
        assert "stages.2.1.pwconv1.weight" in released
        if generation == V2:
            assert released["stages.2.1.grn.gamma"].shape == (1, 1, 1, 4 * 24)
        theirs = timm.models.convnext.checkpoint_filter_fn(released, in_timm(generation))
        assert theirs.keys() == ours.state_dict().keys()
        assert all(torch.equal(tensor, ours.state_dict()[key]) for key, tensor in theirs.items())


def test_one_by_one_convolutions_become_linear_layers_and_back(build, enliven, logits):
    conv = enliven(in_timm(V2, conv_mlp=True))
    released = from_convrun(conv.state_dict(), "released")
    assert released["stages.0.1.pwconv2.weight"].shape == (8, 32)
    linear = build(seed=3, **V2)
    linear.load_state_dict(to_convrun(released), strict=True)
    torch.testing.assert_close(logits(linear), logits(conv), atol=1e-5, rtol=1e-5)


def test_isotropic_names_go_there_and_back():
    with torch.device("meta"):
        model = registry.find("model", "convnext_isotropic_large").create(1000)
    released = from_convrun(model.state_dict(), "released")
    assert {"stem.bias", "blocks.35.dwconv.weight", "blocks.0.gamma", "norm.weight", "head.bias"} <= released.keys()
    assert detect(released) == "released"
    assert to_convrun(released).keys() == model.state_dict().keys()
    assert detect(model.state_dict()) == "timm"


def test_a_bare_model_of_transformers_is_read_without_its_classifier(build):
    ours = build(**V1)
    bare = transformers.ConvNextModel(transformers.ConvNextConfig(hidden_sizes=list(DIMS), depths=list(DEPTHS)))
    assert detect(bare.state_dict()) == "transformers"
    assert to_convrun(bare.state_dict()).keys() == ours.state_dict().keys() - {"head.fc.weight", "head.fc.bias"}


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_base", "convnext_xlarge", "convnextv2_tiny"])
def test_full_size_names_and_shapes_are_timms(name):
    with torch.device("meta"):
        ours, theirs = registry.find("model", name).create(1000), timm.create_model(name)
    assert shapes(to_convrun(from_convrun(ours.state_dict(), "released"))) == shapes(theirs.state_dict())


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_full_size_names_and_shapes_are_torchvisions(size):
    with torch.device("meta"):
        ours = registry.find("model", f"convnext_{size}").create(1000)
        theirs = getattr(torchvision.models, f"convnext_{size}")()
    assert shapes(from_convrun(ours.state_dict(), "torchvision")) == shapes(theirs.state_dict())
    assert shapes(to_convrun(theirs.state_dict())) == shapes(ours.state_dict())


@pytest.mark.parametrize(("name", "kind"), [("convnext_tiny", "ConvNext"), ("convnextv2_tiny", "ConvNextV2")])
def test_full_size_names_and_shapes_are_transformers(name, kind):
    config = getattr(transformers, f"{kind}Config")(num_labels=1000)  # the default shape is tiny
    with torch.device("meta"):
        ours = registry.find("model", name).create(1000)
        theirs = getattr(transformers, f"{kind}ForImageClassification")(config)
    assert shapes(from_convrun(ours.state_dict(), "transformers")) == shapes(theirs.state_dict())


def shapes(state):
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def test_what_a_layout_has_no_name_for_is_refused(build):
    with pytest.raises(ModelError, match=r"torchvision layout has no name for 14 tensors.*mlp\.grn"):
        from_convrun(build(**V2).state_dict(), "torchvision")
    with pytest.raises(ModelError, match="no layout 'keras'; there are timm, released, torchvision, transformers"):
        from_convrun(build().state_dict(), "keras")
    assert layouts() == ["timm", "released", "torchvision", "transformers"]


def test_names_of_no_layout_are_refused_with_a_sample():
    state = timm.create_model("resnet18", num_classes=2).state_dict()
    with pytest.raises(ModelError, match=r"no layout convrun knows \(timm, .*begin with conv1\.weight, bn1\.weight"):
        detect(state)


def test_two_tensors_of_one_name_are_refused():
    state = {
        "downsample_layers.0.0.weight": torch.zeros(1),
        "stem.0.weight": torch.zeros(1),
        "head.bias": torch.ones(1),
    }
    with pytest.raises(ModelError, match=r"two tensors would be called stem\.0\.weight"):
        to_convrun(state)
