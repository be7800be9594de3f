"""Files whose names differ from the model's by something harmless load whole; others are refused, never in part."""

import re

import pytest
import timm
import torch

from convrun.errors import ModelError
from convrun.recipe import load_recipe
from convrun.recipe.sections import Init
from convrun.weights.initial import load_initial
from tests.weights.other_names import in_layout

V2 = {"layer_scale_init": None, "use_grn": True}
HEAD = ("head.fc.weight", "head.fc.bias")


@pytest.fixture
def file(tmp_path):
    def file(content, name="w.ckpt"):
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return file


@pytest.fixture
def loads(build, file):
    """Loads a file into another model; every tensor of it but `new` must equal the source's. Gives the line."""

    def loads(content, source, *, new=(), model=None, **init):
        model = build(seed=9) if model is None else model
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        classes = before["head.fc.bias"].numel()
        line = load_initial(model, Init(from_=file(content), **init), classes)
        for key, tensor in model.state_dict().items():
            expected = before[key] if key in new else source.state_dict()[key]
            assert torch.equal(tensor, expected.reshape(tensor.shape)), key
        return line

    return loads


def prefixed(state, prefix):
    return {prefix + key: tensor for key, tensor in state.items()}


def without_head(state):
    return {key: tensor for key, tensor in state.items() if not key.startswith("head.fc")}


PREFIXES = ["net.", "module.", "model.", "student.", "encoder.", "a.b.c.", "head.", "stages.", "stem."]


@pytest.mark.parametrize("layout", ["timm", "released", "torchvision", "transformers", "mmpretrain"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_is_taken_off_and_told(build, loads, layout, prefix):
    source = build()
    line = loads(prefixed(in_layout(source.state_dict(), layout), prefix), source)
    assert f", without the prefix {prefix})" in line
    assert "left out" not in line


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "net._orig_mod.module."])
def test_wrappers_come_off_in_any_order(build, loads, prefix):
    source = build()
    loads(prefixed(source.state_dict(), prefix), source)


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module."]
)
def test_wrappers_within_a_name_come_off(build, loads, wrapper):
    """torch.compile, FSDP and activation checkpointing of each block alone."""
    source = build()
    state = {re.sub(r"(blocks\.\d+\.)", rf"\1{wrapper}", key): t for key, t in source.state_dict().items()}
    loads({"state_dict": prefixed(state, "net.")}, source)


def test_a_tensor_that_is_there_twice_but_for_a_wrapper_is_refused(build, file):
    state = build().state_dict()
    state["_orig_mod.stem.0.bias"] = state["stem.0.bias"]
    with pytest.raises(ModelError, match=r"stem\.0\.bias and _orig_mod\.stem\.0\.bias are the same tensor"):
        load_initial(build(), Init(from_=file(state)), 5)


@pytest.mark.parametrize(
    "extras",
    [
        {"criterion.weight": torch.ones(5)},
        {"loss_fn.ce.weight": torch.ones(5), "train_loss.w": torch.ones(2), "val_metrics.acc.total": torch.ones(1)},
        {"n_averaged": torch.tensor(9)},
        {"steps": torch.tensor(9), "num_updates": torch.tensor(3, dtype=torch.int32)},
    ],
    ids=lambda extras: next(iter(extras)),
)
@pytest.mark.parametrize("prefix", ["", "net.", "model.backbone."])
def test_what_training_keeps_beside_a_model_is_left_out_and_told(build, loads, extras, prefix):
    source = build()
    line = loads({"state_dict": prefixed(source.state_dict(), prefix) | extras, "epoch": 1}, source)
    assert f", {len(extras)} of the file left out: {', '.join(extras)}" in line


def test_dinov3s_convnext_loads(build, loads):
    """The released names without a head, and the last norm once more."""
    source = build()
    state = in_layout(without_head(source.state_dict()), "released")
    state |= {f"norms.3.{part}": state[f"norm.{part}"] for part in ("weight", "bias")}
    line = loads(state, source, new=HEAD, head="reinit")
    assert line.endswith(
        "2 made new: head.fc.weight, head.fc.bias, 2 of the file left out: norms.3.weight, norms.3.bias"
    )


def test_a_masked_autoencoder_loads_without_its_decoder(build, loads):
    source = build(**V2)
    body = {key: tensor for key, tensor in source.state_dict().items() if not key.startswith("head.")}
    decoder = {"mask_token": torch.ones(1, 4, 1, 1), "proj.weight": torch.ones(4, 32, 1, 1), "pred.bias": torch.ones(9)}
    decoder |= prefixed(in_layout(body, "released"), "decoder.")
    content = {"model": prefixed(in_layout(body, "released"), "encoder.") | decoder}
    cure = r"""leave one out: 'init\.ignore=\["encoder\.\*"\]' or 'init\.ignore=\["decoder\.\*"\]'"""
    with pytest.raises(ModelError, match=cure):  # a decoder as large as the encoder
        loads(content, source, model=build(seed=9, **V2), head="reinit")
    small = {key: t for key, t in content["model"].items() if not re.match(r"decoder\.(stages|down|norm)", key)}
    small["decoder.0.dwconv.weight"] = torch.ones(4, 1, 7, 7)
    new = {"head.norm.weight", "head.norm.bias", *HEAD}
    line = loads({"model": small}, source, new=new, model=build(seed=9, **V2), head="reinit")
    assert "(released layout, without the prefix encoder.), 4 made new" in line
    assert "4 of the file left out: mask_token, proj.weight, pred.bias and 1 more" in line


def test_decoders_without_a_mask_are_no_known_extras(build, file):
    state = build().state_dict() | {"decoder.0.weight": torch.ones(3)}
    with pytest.raises(ModelError, match=r"1 tensor of the file not in the model \(decoder\.0\.weight\)"):
        load_initial(build(), Init(from_=file(state)), 5)


@pytest.mark.parametrize("name", ["fc", "classifier", "head", "linear", "head.1", "classifier.4", "cls_head.fc"])
@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone."])
def test_a_head_of_another_name_is_kept_or_left_out(build, loads, name, prefix):
    """The rest lies behind a prefix, and the classifier beside it."""
    source = build()
    top = prefix.removesuffix("backbone.")
    head = {f"{top}{name}.{part}": source.state_dict()[f"head.fc.{part}"] for part in ("weight", "bias")}
    content = {"state_dict": prefixed(without_head(source.state_dict()), prefix) | head}
    assert f"head from {top}{name})" in loads(content, source)
    line = loads(content, source, new=HEAD, head="reinit")
    assert f"2 of the file left out: {top}{name}.weight, {top}{name}.bias" in line


def test_a_head_of_another_name_and_size_needs_reinit(build, file):
    source = build(21)
    head = {f"fc.{part}": source.state_dict()[f"head.fc.{part}"] for part in ("weight", "bias")}
    content = without_head(source.state_dict()) | head
    message = (
        r"holds no classifier \(head\.fc\.weight is not there, but fc\.weight: 21×32, fc\.bias: 21\); init\.head=reinit"
    )
    with pytest.raises(ModelError, match=message):
        load_initial(build(), Init(from_=file(content)), 5)


def test_of_two_heads_none_is_taken_silently(build, file, loads):
    source = build()
    state = source.state_dict()
    content = without_head(state) | {
        f"{name}.{part}": state[f"head.fc.{part}"] for name in ("fc", "aux_head") for part in ("weight", "bias")
    }
    with pytest.raises(ModelError, match=r"holds no classifier .* but fc\.weight: 5×32"):
        load_initial(build(), Init(from_=file(content)), 5)
    line = loads(content, source, ignore=("aux_head.*",))
    assert line.endswith("(the model's own names, head from fc), 2 ignored: aux_head.weight, aux_head.bias")


def test_mmpretrains_checkpoints_load(build, loads):
    for keys in ({}, V2):
        source = build(**keys)
        content = {"state_dict": in_layout(source.state_dict(), "mmpretrain"), "meta": {"epoch": 300}}
        assert {"backbone.norm3.weight", "head.fc.bias"} <= content["state_dict"].keys()
        ema = {f"module.{key}": tensor for key, tensor in content["state_dict"].items()} | {"steps": torch.tensor(5)}
        line = loads(content, source, model=build(seed=9, **keys))
        assert "(mmpretrain layout)" in line
        both = {"state_dict": {}, "ema_state_dict": ema}
        line = loads(both, source, model=build(seed=9, **keys), weights="ema")
        assert "(mmpretrain layout, without the prefix module., EMA)" in line


def test_a_remainder_is_refused_with_a_cure_that_works(build, file, loads, tiny_file):
    """CLIP's image tower, as OpenCLIP saves it beside the text's."""
    source = build()
    content = prefixed(without_head(source.state_dict()), "visual.trunk.") | {
        "visual.proj.weight": torch.ones(4, 32),
        "transformer.resblocks.0.attn.in_proj_weight": torch.ones(6),
        "transformer.resblocks.1.attn.in_proj_weight": torch.ones(6),
        "token_embedding.weight": torch.ones(7, 3),
        "logit_scale": torch.tensor(4.6),
    }
    with pytest.raises(ModelError, match=r"5 tensors of the file not in the model \(visual\.proj") as caught:
        load_initial(build(), Init(from_=file(content), head="reinit"), 5)
    assert "same architecture" not in str(caught.value)
    override = re.search(r"leave them out: '(init\.ignore=.*)'$", str(caught.value))[1]
    assert override == 'init.ignore=["visual.proj.*", "transformer.*", "token_embedding.*", "logit_scale"]'
    path = file(content)
    init = load_recipe(tiny_file, [f"init.from={path}", override], plugins=False).init
    line = loads(content, source, new=HEAD, head="reinit", ignore=init.ignore)
    assert line.endswith("5 ignored: visual.proj.weight, transformer.resblocks.0.attn.in_proj_weight, "
                         "transformer.resblocks.1.attn.in_proj_weight and 2 more")  # fmt: skip


def test_a_pattern_that_matches_nothing_is_an_error(build, file):
    with pytest.raises(
        ModelError, match=r"init\.ignore: teacher\.\* matches no tensor of w\.ckpt, whose names are stem"
    ):
        load_initial(build(), Init(from_=file(build().state_dict()), ignore=("teacher.*",)), 5)


def test_a_pattern_may_not_take_what_the_model_needs(build, file):
    init = Init(from_=file(build().state_dict()), ignore=("stem.*",))
    with pytest.raises(ModelError, match=r"4 tensors of the model not in the file \(stem.* Give a file that holds"):
        load_initial(build(), init, 5)


def test_ignore_without_a_file_is_a_key_without_effect(convrun, tiny_file):
    code, _, errors = convrun("validate", tiny_file, "init.ignore=[a]")
    assert code == 2
    assert "init.ignore: has no effect: no weights are loaded; set init.from, or remove it" in errors


def test_two_sets_of_weights_are_told_apart_by_the_user_alone(build, loads, file):
    student, teacher = build(seed=1), build(seed=2)
    content = {"student": student.state_dict(), "teacher": teacher.state_dict(), "epoch": 3}
    message = r"""holds the model 2 times \(student\.stem\.0\.weight, teacher\.stem\.0\.weight\); leave one out: """
    with pytest.raises(ModelError, match=message + r"""'init\.ignore=\["student\.\*"\]' or 'init\.ignore=\["teacher"""):
        load_initial(build(), Init(from_=file(content)), 5)
    loads(content, teacher, ignore=("student.*",))
    loads(content, student, ignore=("teacher.*",))
    averaged = prefixed(student.state_dict(), "model.") | prefixed(teacher.state_dict(), "ema_model.")
    loads({"state_dict": averaged}, teacher, ignore=("model.*",))


def test_of_two_models_the_one_of_the_right_shapes_fits(build, loads, file):
    small, large = build(), build(dims=(16, 24, 32, 48))
    content = {"student": small.state_dict(), "teacher": large.state_dict()}
    with pytest.raises(
        ModelError, match=r"not in the model \(teacher.*leave them out: 'init\.ignore=\[\"teacher\.\*\"\]'"
    ):
        load_initial(build(), Init(from_=file(content)), 5)
    loads(content, small, ignore=("teacher.*",))


@pytest.mark.parametrize("prefix", ["", "net."])
@pytest.mark.parametrize("head", ["keep", "reinit"])
@pytest.mark.parametrize(
    "other",
    [
        {"depths": (2, 1, 4, 1)},
        {"depths": (1, 1, 3, 1)},
        {"dims": (8, 16, 24, 40)},
        {"kernel_size": 5},
        {"patch_size": 2},
        {"layer_scale_init": None},
        V2,
    ],
    ids=lambda other: str(other),
)
def test_another_architecture_stays_an_error(build, file, other, head, prefix):
    """Deeper, shallower, wider, another kernel, another patch, without layer scale, V2; behind a prefix as well."""
    model, before = build(), build().state_dict()
    content = prefixed(build(seed=1, **other).state_dict(), prefix) | {"criterion.weight": torch.ones(2)}
    with pytest.raises(ModelError, match="does not fit the model: ") as caught:
        load_initial(model, Init(from_=file(content), head=head), 5)
    assert "criterion" not in str(caught.value)
    if "kernel_size" in other or "patch_size" in other:  # shapes alone differ
        assert "Give weights of the same architecture, or set the model section to the file's" in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_hidden_layer_in_the_head_is_not_left_out_silently(build, file):
    state = build().state_dict() | {"head.pre_logits.fc.weight": torch.ones(32, 32)}
    with pytest.raises(ModelError, match=r"1 tensor of the file not in the model \(head\.pre_logits\.fc\.weight\)"):
        load_initial(build(), Init(from_=file(state)), 5)


def test_counters_of_batch_norm_may_be_missing_and_are_told(file):
    source, model = timm.create_model("resnet18", num_classes=3), timm.create_model("resnet18", num_classes=3)
    state = {key: tensor for key, tensor in source.state_dict().items() if "num_batches" not in key}
    line = load_initial(model, Init(from_=file(prefixed(state, "net."))), 3)
    assert ", 20 kept as built: bn1.num_batches_tracked, layer1.0.bn1.num_batches_tracked, " in line
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in state.items())


def test_buffers_that_models_compute_today_are_left_out(file):
    source = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3)
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3)
    old = {
        "layers.0.blocks.0.attn.relative_position_index": torch.ones(9, 9),
        "layers.0.blocks.1.attn_mask": torch.ones(4),
    }
    assert not old.keys() & source.state_dict().keys()
    assert "2 of the file left out: layers.0" in load_initial(model, Init(from_=file(source.state_dict() | old)), 3)
