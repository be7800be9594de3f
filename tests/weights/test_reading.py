import argparse
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from convrun.errors import CheckpointError
from convrun.weights.reading import kind_of, read_weights

MODEL = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
EMA = {name: tensor + 100 for name, tensor in MODEL.items()}


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.fixture
def saved(tmp_path):
    def saved(content, name="file.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return saved


@pytest.mark.parametrize(
    "content",
    [
        {"model": MODEL, "model_ema": EMA, "optimizer": {"state": {}}, "epoch": 3, "args": argparse.Namespace(lr=4e-3)},
        {"state_dict": MODEL, "state_dict_ema": EMA, "arch": "convnext_tiny", "version": 2},
        {"format": 1, "model": MODEL, "ema": EMA, "state": {"step": 4, "best": [[80.5, 4]]}, "class_names": ["a"]},
        {"net": MODEL, "net_ema": EMA, "optimizer": {"state": {"a.weight": {"exp_avg": torch.ones(2)}}}},
        {"trainer": {"epoch": 3}, "network": {"weights": MODEL}, "ema": {"decay": 0.9, "shadow": EMA}},
    ],
    ids=["released", "timm", "convrun", "entries of other names", "nested entries"],
)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_training_checkpoints_give_the_model_or_its_ema(saved, content, is_zip):
    path = saved(content, _use_new_zipfile_serialization=is_zip)
    assert same(read_weights(path), MODEL)
    assert same(read_weights(path, "ema"), EMA)


def test_an_ema_without_counters_takes_the_models(saved):
    counters = {"bn.num_batches_tracked": torch.tensor(7)}
    path = saved({"format": 1, "model": MODEL | counters, "ema": EMA})
    assert same(read_weights(path, "ema"), EMA | counters)


def test_values_beside_the_tensors_are_left_out(saved):
    assert same(read_weights(saved({**MODEL, "epoch": 3, "a._extra_state": None, 7: torch.ones(1)})), MODEL)
    assert same(read_weights(saved({"state_dict": {**MODEL, "classes": ["a", "b"]}, "epoch": 3})), MODEL)


def test_entries_of_several_sets_of_weights_are_told_apart_by_their_names(saved):
    found = read_weights(saved({"student": MODEL, "teacher": {"backbone": EMA}, "step": torch.tensor(3)}))
    expected = {f"student.{k}": t for k, t in MODEL.items()} | {f"teacher.backbone.{k}": t for k, t in EMA.items()}
    assert same(found, expected | {"step": torch.tensor(3)})


def test_safetensors_and_plain_state_dicts_are_read(saved, tmp_path):
    save_file(MODEL, tmp_path / "named.anything")
    assert same(read_weights(tmp_path / "named.anything"), MODEL)
    assert same(read_weights(saved(MODEL, "plain.bin")), MODEL)


def test_tensors_are_mapped_and_may_be_written_to(saved):
    path = saved({"model": MODEL})
    read_weights(path)["a.bias"].add_(1)
    assert same(read_weights(path), MODEL)


@pytest.mark.parametrize(
    ("content", "weights", "message"),
    [
        ({"model": MODEL, "args": argparse.Namespace()}, "ema", "holds no EMA, only the model's.*init.weights=model"),
        ({"format": 1, "model": MODEL, "ema": None}, "ema", "holds no EMA, only the model's.*init.weights=model"),
        ({"state_dict_ema": EMA}, "model", "holds only an EMA.*init.weights=ema"),
        (MODEL, "ema", "one set of weights and no EMA beside it; take it with init.weights=model"),
        ({"epoch": 3, "lr": 0.1}, "model", "no weights convrun can find, but the entries epoch, lr"),
        ({}, "model", "no weights convrun can find, but nothing"),
        ([torch.ones(2)], "model", "no weights convrun can find, but a list"),
        ({"a": 2, "optimizer": {"x": torch.ones(2)}}, "model", "can find, but the entries a, optimizer"),
    ],
)
def test_weights_that_are_not_there_are_named_with_a_cure(saved, content, weights, message):
    with pytest.raises(CheckpointError, match=message):
        read_weights(saved(content), weights)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_file_never_runs_code(saved, tmp_path, is_zip):
    trace = tmp_path / "it ran"
    content = {"model": MODEL, "args": Malicious(str(trace))}
    path = saved(content, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match=r"an object of posix\.mkdir.*nothing was run.*save its state dict alone"):
        read_weights(path)
    assert not trace.exists()


def test_a_plain_pickle_never_runs_code(tmp_path):
    trace = tmp_path / "it ran"
    (tmp_path / "file.pth").write_bytes(pickle.dumps(Malicious(str(trace)), protocol=2))
    with pytest.raises(CheckpointError, match=r"an object of posix\.mkdir.*nothing was run"):
        read_weights(tmp_path / "file.pth")
    assert not trace.exists()


def test_a_namespace_cannot_smuggle_code(saved, tmp_path):
    trace = tmp_path / "it ran"
    path = saved({"model": MODEL, "args": argparse.Namespace(callback=Malicious(str(trace)))})
    with pytest.raises(CheckpointError, match="nothing was run"):
        read_weights(path)
    assert not trace.exists()


def test_a_pickled_module_is_refused(saved):
    with pytest.raises(CheckpointError, match=r"an object of torch\.nn\.modules\.linear\.Linear"):
        read_weights(saved(torch.nn.Linear(2, 2)))


def test_damaged_files_are_refused(saved, tmp_path):
    """Cut anywhere, or with a byte changed in a tensor."""
    whole = saved({"model": MODEL, "args": argparse.Namespace(lr=1.0)}).read_bytes()
    path = tmp_path / "damaged.pth"
    for size in range(4, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"damaged\.pth is damaged or incomplete .*get it again"):
            read_weights(path)
    values = MODEL["a.weight"].numpy().tobytes()
    at = whole.index(values) + 5
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(CheckpointError, match="wrong check sum"):
        read_weights(path)


def test_safetensors_whose_length_of_header_begins_as_a_pickle_does_are_no_pickle(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(MODEL, path)
    assert path.read_bytes()[0] == 0x80  # a header of 128 bytes
    assert kind_of(path, "w.safetensors") == "safetensors"
    same(read_weights(path), MODEL)


def test_cut_safetensors_are_refused(tmp_path):
    path = tmp_path / "cut.safetensors"
    save_file(MODEL, path)
    whole = path.read_bytes()
    for size in range(9, len(whole), 13):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"cut\.safetensors is damaged or incomplete"):
            read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>Log in</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "it is git-lfs's pointer"),
        (b'{"metadata": {}, "weight_map": {}}', "it is JSON"),
        (b"\x89PNG\r\n\x1a\n0000000000", "neither safetensors nor torch's"),
        (b"x" * 300, "neither safetensors nor torch's"),
    ],
)
def test_foreign_files_are_named_for_what_they_are(tmp_path, content, message):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"file.pth is no file of weights: {message}"):
        read_weights(tmp_path / "file.pth")


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth cannot be read: No such file"):
        read_weights(tmp_path / "none.pth")
