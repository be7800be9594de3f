"""A head that is kept and names its classes is put into the data's order of them, or refused."""

import itertools
import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from convrun import checkpoints
from convrun.errors import CheckpointError, ModelError
from convrun.recipe.sections import Init
from convrun.weights.classes import are_comparable, rows_of_head
from convrun.weights.facts import class_names_in
from convrun.weights.initial import load_initial
from convrun.weights.reading import read_weights_and_classes

TIMM, BYTES = ("ant", "Bee", "Zebra", "10", "9"), ("10", "9", "Bee", "Zebra", "ant")
HEAD = ("head.fc.weight", "head.fc.bias")


@pytest.fixture
def file(build, tmp_path):
    """Weights of five classes in timm's order, named in the metadata, beside the file, or in a checkpoint."""
    state = {key: tensor.contiguous() for key, tensor in build(seed=1).state_dict().items()}

    def file(where, names=TIMM):
        path = tmp_path / ("w.safetensors" if where == "metadata" else "w.pth")
        if where == "metadata":
            save_file(state, path, {"class_names": json.dumps(names)})
        else:
            extra = {
                "beside": {},
                "nowhere": {},
                "convrun": {"data": {"class_names": list(names)}},
                "mmpretrain": {"meta": {"dataset_meta": {"classes": tuple(names)}}},
                "mmclassification": {"meta": {"CLASSES": tuple(names)}},
            }[where]
            torch.save({"model": state, **extra}, path)
        if where == "beside":
            (tmp_path / "classes.json").write_text(json.dumps(names))
        return str(path)

    return file


PLACES = ["metadata", "beside", "convrun", "mmpretrain", "mmclassification"]


@pytest.mark.parametrize("where", PLACES)
def test_a_head_in_another_order_is_put_into_the_datas(build, file, where):
    source, model = build(seed=1).state_dict(), build(seed=2)
    line = load_initial(model, Init(from_=file(where)), 5, BYTES)
    assert line.endswith(", head put into the data's order of classes)")
    for key, tensor in model.state_dict().items():
        expected = source[key][[TIMM.index(name) for name in BYTES]] if key in HEAD else source[key]
        assert torch.equal(tensor, expected), key


@pytest.mark.parametrize("where", [*PLACES, "nowhere"])
def test_a_head_in_the_same_order_or_of_unknown_classes_stays(build, file, where):
    model = build(seed=2)
    line = load_initial(model, Init(from_=file(where)), 5, TIMM if where != "nowhere" else BYTES)
    assert line.endswith("(the model's own names)")
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in build(seed=1).state_dict().items())


@pytest.mark.parametrize("where", PLACES)
def test_a_head_of_other_classes_is_refused_by_name(build, file, where):
    message = r"w\.\w+ was trained on other classes than the data's: only in the file: Zebra; only in the data: Zebu; "
    with pytest.raises(ModelError, match=message + r"init\.head=reinit makes a new head"):
        load_initial(build(), Init(from_=file(where)), 5, ("ant", "Bee", "Zebu", "10", "9"))


def test_fewer_classes_than_the_file_has_are_other_classes(build, file):
    with pytest.raises(ModelError, match="only in the file: 9; init"):
        load_initial(build(), Init(from_=file("metadata")), 5, TIMM[:4])


def test_a_head_that_is_made_new_may_be_of_any_classes(build, file):
    assert "2 made new" in load_initial(
        build(), Init(from_=file("metadata"), head="reinit"), 5, ("a", "b", "c", "d", "e")
    )


def test_a_larger_head_keeps_its_other_rows_behind(build, tmp_path):
    source = build(5, seed=1).state_dict()
    save_file({k: t.contiguous() for k, t in source.items()}, tmp_path / "w", {"class_names": '["b", "a", "c"]'})
    model = build(5, seed=2)
    load_initial(model, Init(from_=str(tmp_path / "w")), 5, ("a", "b", "c"))
    assert torch.equal(model.head.fc.bias, source["head.fc.bias"][[1, 0, 2, 3, 4]])


def test_names_are_compared_in_one_form():
    assert rows_of_head("w", ("cafe\u0301", "b"), ("caf\u00e9", "b")) is None
    assert rows_of_head("w", ("b", "cafe\u0301"), ("caf\u00e9", "b")) == [1, 0]


def test_numbers_that_stand_for_names_are_not_compared_and_that_is_told(build, file):
    assert not are_comparable(("0", "1", "2"), ("ant", "bee", "cat"))
    assert not are_comparable(("ant", "bee"), ("class 0", "class 1"))
    assert are_comparable(("0", "1", "10", "2"), ("0", "1", "2", "10"))  # sorted otherwise: these are names
    assert are_comparable(("1", "2"), ("ant", "bee"))  # not from 0: years, house numbers
    line = load_initial(build(), Init(from_=file("metadata")), 5, ("0", "1", "2", "3", "4"))
    assert line.endswith(", classes not compared: numbers stand for names)")


def test_numbers_in_another_order_are_put_into_the_datas():
    natural, by_bytes = [str(i) for i in range(11)], sorted(str(i) for i in range(11))
    assert rows_of_head("w", natural, by_bytes) == [0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9]


def test_two_classes_of_one_name_are_not_told_apart_silently():
    assert rows_of_head("w", ("crane", "crane", "a"), ("crane", "crane", "a")) is None
    with pytest.raises(ModelError, match="in another order, and of crane there are two, so nobody knows"):
        rows_of_head("w", ("crane", "crane", "a"), ("crane", "a", "crane"))


@pytest.mark.parametrize(
    "text",
    ['["a", "b", "c"]', '{"0": "a", "2": "c", "1": "b"}', '{"c": 2, "a": 0, "b": 1}', '{"0": "a", "1": "b", "2": "c"}'],
)
def test_a_list_beside_the_file_may_be_another_programs(tmp_path, text):
    (tmp_path / "classes.json").write_text(text)
    assert class_names_in(tmp_path / "classes.json") == ("a", "b", "c")


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2}', '{"a": "x"}', "{}", '{"a": 0, "b": 0}', '"abc"'])
def test_a_list_that_leaves_labels_open_is_refused(build, file, tmp_path, text):
    path = file("beside")
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"classes\.json holds something else than class names; write the list"):
        load_initial(build(), Init(from_=path), 5, TIMM)


def test_metadata_of_other_programs_are_no_class_names(build, tmp_path):
    for text in ("ant, bee", "[1, 2]", "{}", "[]"):
        save_file({k: t.contiguous() for k, t in build().state_dict().items()}, tmp_path / "w", {"class_names": text})
        assert read_weights_and_classes(tmp_path / "w")[1] is None


def test_a_run_that_keeps_a_head_puts_it_into_its_order_and_says_so(reference, train, tmp_path):
    """What a run leaves names its classes, so a run on the same data in another order cannot go wrong."""
    path = tmp_path / "w.safetensors"
    shutil.copy(reference / "weights" / "last.safetensors", path)
    state = load_file(path)
    names = ["class 2", "class 0", "class 1"]
    for key in HEAD:
        state[key] = state[key][[2, 0, 1]].contiguous()
    save_file(state, path, {"class_names": json.dumps(names)})
    train(f"init.from={path}", "optimizer.lr=1e-12", "scheduler={name: constant, warmup_steps: 0}", "ema=null",
          "evaluation.report=model", "optimizer.weight_decay=0")  # fmt: skip
    assert "head put into the data's order of classes" in (tmp_path / "run/train.log").read_text()
    ours = checkpoints.load((tmp_path / "run/checkpoints/latest").resolve())["model"]
    theirs = load_file(reference / "weights" / "last.safetensors")
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in HEAD)


def test_a_run_on_other_classes_ends_before_there_is_a_folder(reference, train, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(load_file(reference / "weights" / "last.safetensors"), path, {"class_names": '["ant", "bee", "cat"]'})
    for split, name, number in itertools.product(("train", "val"), ("ant", "bee", "dog"), range(4)):
        image = tmp_path / "images" / split / name / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(image)
    data = f"data={{name: image_folder, root: {tmp_path / 'images'}, workers: 0}}"
    with pytest.raises(ModelError, match="only in the file: cat; only in the data: dog"):
        train(f"init.from={path}", data, "scheduler.warmup_steps=0")
    assert not (tmp_path / "run").exists()
