import argparse

import pytest
import timm
import torch
from safetensors.torch import save_file

from convrun.errors import ModelError
from convrun.recipe.sections import Init
from convrun.registry import registry
from convrun.weights.initial import load_initial
from tests.weights.other_names import in_layout

HEAD = ["head.fc.weight", "head.fc.bias"]
V2 = {"layer_scale_init": None, "use_grn": True}


@pytest.fixture
def file(tmp_path):
    def file(state, name="w.safetensors"):
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / name)
        return str(tmp_path / name)

    return file


def copied(model):
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def same(found, expected, keys=None):
    return all(torch.equal(found[key], expected[key]) for key in keys or expected)


def test_every_layout_loads_and_the_line_tells_it(build, file):
    source = build()
    for layout in ("released", "torchvision", "transformers"):
        model = build(seed=1)
        line = load_initial(model, Init(from_=file(in_layout(source.state_dict(), layout))), 5)
        assert same(model.state_dict(), source.state_dict())
        assert line == f"init: {len(source.state_dict())} tensors loaded from w.safetensors ({layout} layout)"
    line = load_initial(build(seed=1), Init(from_=file(source.state_dict())), 5)
    assert line.endswith("(the model's own names)")


def test_the_ema_is_loaded_where_asked(build, tmp_path):
    model, ema = build(seed=1), build(seed=2)
    both = {n: in_layout(m.state_dict(), "released") for n, m in (("model", model), ("model_ema", ema))}
    torch.save({**both, "args": argparse.Namespace(lr=1)}, tmp_path / "c.pth")
    for weights, expected in (("model", model), ("ema", ema)):
        loaded = build(seed=3)
        line = load_initial(loaded, Init(from_=str(tmp_path / "c.pth"), weights=weights), 5)
        assert same(loaded.state_dict(), expected.state_dict())
        assert line.endswith("(released layout, EMA)" if weights == "ema" else "(released layout)")


@pytest.mark.parametrize("scale", [1.0, 0.001])
@pytest.mark.parametrize("file_classes", [5, 9])
def test_a_head_made_new_is_the_one_the_model_was_built_with_scaled(build, file, scale, file_classes):
    source, model = build(file_classes, seed=1), build(5, seed=2)
    before = copied(model)
    init = Init(from_=file(in_layout(source.state_dict(), "released")), head="reinit", head_init_scale=scale)
    line = load_initial(model, init, 5)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[key] * scale if key in HEAD else source.state_dict()[key])
    expected = f"{len(before) - 2} tensors loaded from w.safetensors (released layout), 2 made new: {', '.join(HEAD)}"
    assert line == f"init: {expected}{' (the head’s times 0.001)'.replace('’', chr(39)) * (scale != 1)}"


def test_head_init_scale_multiplies_a_new_head_only(build):
    """Without init.from too: the weight and the bias (as the released code does), nothing else."""
    model = build()
    before = copied(model)
    assert load_initial(model, Init(head_init_scale=0.001), 5) == "init: all weights are new (the head's times 0.001)"
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key] * 0.001 if key in HEAD else before[key])


def test_a_head_of_another_size_needs_reinit(build, file):
    path = file(in_layout(build(21).state_dict(), "released"))
    with pytest.raises(
        ModelError, match=r"head of 21 classes, but the model has 5; init\.head=reinit makes a new one of 5"
    ):
        load_initial(build(), Init(from_=path), 5)


def test_weights_without_a_head_need_reinit_which_makes_the_final_norm_new_too(build, file):
    """FCMAE weights, as timm has them, end before the final norm."""
    source, model = build(seed=1, **V2), build(seed=2, **V2)
    before = copied(model)
    path = file({key: tensor for key, tensor in source.state_dict().items() if not key.startswith("head.")})
    with pytest.raises(ModelError, match=r"holds no classifier \(head\.fc\.weight is not there\); init\.head=reinit"):
        load_initial(model, Init(from_=path), 5)
    line = load_initial(model, Init(from_=path, head="reinit", head_init_scale=0.5), 5)
    norm = ["head.norm.weight", "head.norm.bias"]
    assert f"4 made new: {', '.join([*norm, *HEAD])}" in line
    assert same(model.state_dict(), before, norm)
    assert torch.equal(model.head.fc.weight, before["head.fc.weight"] * 0.5)
    assert same(model.state_dict(), source.state_dict(), [key for key in before if not key.startswith("head.")])


def test_only_weights_without_a_head_may_lack_the_final_norm(build, file):
    state = {key: tensor for key, tensor in build().state_dict().items() if not key.startswith("head.norm")}
    with pytest.raises(
        ModelError, match=r"2 tensors of the model not in the file \(head\.norm\.weight, head\.norm\.bias"
    ):
        load_initial(build(), Init(from_=file(state), head="reinit"), 5)


def test_axes_of_length_one_come_and_go(build, file, logits):
    """Atto's 1x1 convolutions load from a file of linear layers, and the other way round."""
    conv, other = build(name="convnextv2_atto"), build(name="convnextv2_atto", seed=1)
    linear = in_layout(conv.state_dict(), "transformers")
    assert linear["convnextv2.encoder.stages.0.layers.0.pwconv1.weight"].ndim == 2
    load_initial(other, Init(from_=file(linear)), 5)
    assert same(other.state_dict(), conv.state_dict())
    free = build(depths=(2, 2, 6, 2), dims=(40, 80, 160, 320), **V2)
    load_initial(free, Init(from_=file(conv.state_dict())), 5)
    torch.testing.assert_close(logits(free), logits(conv), atol=1e-5, rtol=1e-5)


def test_released_v2_files_load_with_any_rank_of_grn(build, file):
    source = build(**V2)
    for shape in ((1, 1, 1, -1), (1, -1), (-1,)):
        state = in_layout(source.state_dict(), "released")
        state |= {key: tensor.reshape(shape) for key, tensor in state.items() if ".grn." in key}
        model = build(seed=1, **V2)
        load_initial(model, Init(from_=file(state)), 5)
        assert same(model.state_dict(), source.state_dict())


def test_transposed_weights_are_no_fit(build, file):
    state = build().state_dict()
    state["stages.0.blocks.0.mlp.fc1.weight"] = state["stages.0.blocks.0.mlp.fc1.weight"].T
    with pytest.raises(
        ModelError, match=r"1 tensor of another shape \(stages\.0\.blocks\.0\.mlp\.fc1\.weight: 8×32 in the"
    ):
        load_initial(build(), Init(from_=file(state)), 5)


def test_half_precision_is_loaded_as_float32(build, file):
    source, model = build(), build(seed=1)
    load_initial(model, Init(from_=file({k: t.half() for k, t in source.state_dict().items()})), 5)
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}
    assert same(model.state_dict(), {k: t.half().float() for k, t in source.state_dict().items()})


def named(name, **keys):
    with torch.device("meta"):
        return registry.find("model", name).create(10, **keys)


def meta_file(tmp_path, model):
    """A file of the model's names and shapes whose values take no room."""
    state = {key: torch.zeros(1).expand(tensor.shape) for key, tensor in model.state_dict().items()}
    torch.save({"model": in_layout(state, "released")}, tmp_path / "w.pth")
    return str(tmp_path / "w.pth")


SMALL = {"depths": (1, 1, 1, 1), "dims": (4, 4, 4, 4)}


@pytest.mark.parametrize(
    ("of_file", "of_model", "theirs", "ours"),
    [
        ({"name": "convnext_small"}, {"name": "convnext_tiny"}, "convnext_small (3-3-27-3 ", "convnext_tiny (3-3-9-3 "),
        ({"name": "convnext_tiny"}, {"name": "convnext_base"}, "of 96-192-384-768 ", "of 128-256-512-1024 "),
        ({"name": "convnextv2_atto"}, {"name": "convnext_atto"}, ", GRN, no layer scale)", "channels, layer scale)"),
        (
            {"name": "convnext_isotropic_small"},
            {"name": "convnext_isotropic_small", "layer_scale_init": 1e-6},
            "convnext_isotropic_small (18 blocks of 384 channels, no layer scale)",
            "convnext_isotropic_small (18 blocks of 384 channels, layer scale)",
        ),
        ({"name": "convnext", **SMALL}, {"name": "convnext_tiny"}, "a ConvNeXt (1-1-1-1 blocks", "convnext_tiny ("),
    ],
)
def test_another_architecture_is_named(tmp_path, of_file, of_model, theirs, ours):
    path = meta_file(tmp_path, named(**of_file))
    with pytest.raises(ModelError, match=r"w\.pth does not fit the model: .* tensors? of") as caught:
        load_initial(named(**of_model), Init(from_=path), 10)
    message, _, cure = str(caught.value).partition(" The file is of ")
    assert theirs in cure.partition(", the model is ")[0]
    assert ours in cure.partition(", the model is ")[2]
    assert len(message) < 700


def test_another_architecture_is_told_before_another_head(build, file):
    path = file(build(21, depths=(1, 1, 1, 1)).state_dict())  # three blocks less, of nine tensors each
    with pytest.raises(ModelError, match="does not fit the model: 27 tensors of the model not in the file"):
        load_initial(build(), Init(from_=path), 5)


def test_a_model_whose_head_is_unknown_must_be_given_whole(file):
    model = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 4, 1), "norm": torch.nn.LayerNorm(4)})
    state = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("norm")}
    with pytest.raises(ModelError, match=r"2 tensors of the model not in the file \(norm\.weight, norm\.bias\)"):
        load_initial(model, Init(from_=file(state)), 5)


def test_what_does_not_fit_is_counted_and_sampled(build, file):
    state = build().state_dict()
    for key in ("stem.0.weight", "stem.1.bias"):
        state[f"{key}.more"] = state.pop(key)
    state["head.norm.weight"] = torch.ones(3)
    with pytest.raises(ModelError) as caught:
        load_initial(build(), Init(from_=file(state)), 5)
    text = str(caught.value)
    assert "2 tensors of the model not in the file (stem.0.weight, stem.1.bias)" in text
    assert "2 tensors of the file not in the model (stem.0.weight.more, stem.1.bias.more)" in text
    assert "1 tensor of another shape (head.norm.weight: 3 in the file, 32 in the model)" in text


def test_a_refused_file_leaves_the_model_as_it_was(build, file):
    model, state = build(), build(seed=1).state_dict()
    before = copied(model)
    state["head.norm.weight"] = torch.ones(3)
    with pytest.raises(ModelError):
        load_initial(model, Init(from_=file(state), head="reinit", head_init_scale=0.1), 5)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_diverged_are_refused(build, file, value):
    state = build().state_dict()
    state["stem.0.bias"] = torch.full((8,), value)
    with pytest.raises(ModelError, match=r"NaN or infinite values in 1 tensor \(stem\.0\.bias\)"):
        load_initial(build(), Init(from_=file(state)), 5)


def test_weights_of_no_convnext_are_refused(build, file):
    state = {f"layer{i}.kernel": torch.zeros(2) for i in range(9)}
    with pytest.raises(
        ModelError, match=r"does not fit the model: .* no layout convrun knows .*begin with layer0\.kernel"
    ):
        load_initial(build(), Init(from_=file(state)), 5)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_other_models_of_timm_start_from_their_own_weights(name, file, enliven):
    """Batch norm's counters, positions and other heads included."""
    source, model = timm.create_model(name, num_classes=7), timm.create_model(name, num_classes=3)
    enliven(source)
    before = copied(model)
    head = [key for key in before if key.rpartition(".")[0] in {"fc", "head", "classifier"}]
    line = load_initial(model, Init(from_=file(source.state_dict()), head="reinit"), 3)
    assert f"2 made new: {', '.join(head)}" in line
    assert same(model.state_dict(), before, head)
    assert same(model.state_dict(), source.state_dict(), [key for key in before if key not in head])


def test_the_head_of_an_unknown_model_is_its_last_linear_layer_of_that_size(enliven):
    def create():
        return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))

    model = create()
    before = copied(model)
    load_initial(model, Init(head_init_scale=0.5), 3)
    changed = [key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])]
    assert changed == ["1.weight", "1.bias"]
    with pytest.raises(ModelError, match="no layer of Sequential has 99 outputs"):
        load_initial(create(), Init(head_init_scale=0.5), 99)


def test_on_the_meta_device_all_is_checked_and_nothing_loaded(tmp_path):
    path = meta_file(tmp_path, named("convnext_tiny"))
    assert "182 tensors" in load_initial(named("convnext_tiny"), Init(from_=path), 10)
    with pytest.raises(ModelError, match="head of 10 classes, but the model has 11"):
        with torch.device("meta"):
            model = registry.find("model", "convnext_tiny").create(11)
        load_initial(model, Init(from_=path), 11)
