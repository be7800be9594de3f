import json
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from convrun import checkpoints
from convrun.data.sample import Images
from convrun.errors import CheckpointError, ConvrunError, DataError, ModelError, UsageError
from convrun.plan import Machine, make_plan
from convrun.recipe.sections import Init
from convrun.results.loading import load_model
from convrun.training.model import build_model
from convrun.training.run import open_data
from convrun.weights.initial import load_initial


@pytest.fixture
def validation(tiny):
    """The validation images of the tiny recipe as PIL images, with labels."""
    _, val_set = open_data(tiny().data)
    return [Images(val_set, "val").load(i) for i in range(len(val_set))]


@pytest.fixture
def copied(reference, tmp_path):
    """A copy of the reference run, to be harmed."""
    return shutil.copytree(reference, tmp_path / "copy", symlinks=True)


def logits_of(loaded, images):
    with torch.no_grad():
        return loaded.model(torch.stack([loaded.transform(image) for image, _ in images]))


def last_rows(folder, step=None):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["kind"] == "eval" and step in (None, row["step"])]
    return {row["weights"]: row for row in rows}


@pytest.mark.parametrize("which", ["last", "last_ema", "best", "best_ema"])
def test_a_run_s_weights_score_what_the_run_says(which, reference, validation):
    best = checkpoints.load((reference / "checkpoints" / "best").resolve())["state"]["step"]
    rows = last_rows(reference, best if which.startswith("best") else 16)
    row = rows["ema" if which.endswith("ema") else "model"]
    loaded = load_model(reference, which)
    logits, labels = logits_of(loaded, validation), torch.tensor([label for _, label in validation])
    assert 100 * (logits.argmax(1) == labels).double().mean().item() == row["top1"]
    assert F.cross_entropy(logits, labels).item() == pytest.approx(row["loss"], rel=1e-5)
    assert row["images"] == len(validation)


def test_logits_are_those_of_the_run_s_own_model(reference, tiny, validation):
    plan = make_plan(tiny(), Machine(device="cpu", cores=1))
    own = build_model(plan)
    own.load_state_dict(checkpoints.load((reference / "checkpoints" / "latest").resolve())["model"])
    images = torch.from_numpy(np.stack([np.asarray(image).transpose(2, 0, 1) for image, _ in validation]))
    mean, std = (torch.tensor(values)[:, None, None] for values in (plan.data.settings.mean, plan.data.settings.std))
    with torch.no_grad():
        expected = own.eval()((images.float().contiguous() / 255 - mean) / std)
    assert torch.equal(logits_of(load_model(reference, "last"), validation), expected)


def test_it_knows_classes_and_input(reference):
    loaded = load_model(str(reference))
    assert loaded.classes == ("class 0", "class 1", "class 2")
    assert (loaded.input_size, loaded.source) == (8, str(reference))
    assert (loaded.mean, loaded.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert not loaded.model.training


def test_a_file_alone_is_enough(reference, tmp_path, validation):
    path = shutil.copy(reference / "weights" / "last.safetensors", tmp_path / "elsewhere.safetensors")
    loaded = load_model(path)
    assert torch.equal(logits_of(loaded, validation), logits_of(load_model(reference, "last"), validation))
    assert loaded.classes == ("class 0", "class 1", "class 2")


def test_a_file_without_metadata_is_known_by_what_lies_beside_it(copied, validation):
    path = copied / "weights" / "last.safetensors"
    before = logits_of(load_model(path), validation)
    save_file(load_file(path), path)
    assert torch.equal(logits_of(load_model(path), validation), before)


def test_the_global_generator_stays_as_it_was(reference):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_model(reference)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_any_image_of_8_bits_is_transformed(reference, mode):
    image = Image.fromarray(np.full((11, 9, 3), 200, np.uint8)).convert(mode)
    assert load_model(reference).transform(image).shape == (3, 8, 8)


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_pixels_of_more_bits_are_refused(reference, mode):
    with pytest.raises(DataError, match=rf"an image of mode {mode} has no 8 bits a channel; convert it to RGB first"):
        load_model(reference).transform(Image.new(mode, (9, 9)))


def test_a_run_that_has_no_weights_yet_says_so(copied):
    shutil.rmtree(copied / "weights")
    (copied / "status.json").write_text('{"state": "preempted", "step": 4, "total_steps": 16}')
    with pytest.raises(CheckpointError, match=r"has no weights yet \(preempted, step 4 of 16\); .* convrun run .*copy"):
        load_model(copied)


def test_weights_that_a_run_does_not_have_are_named(copied):
    for name in ("best", "best_ema"):
        (copied / "weights" / f"{name}.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no weights 'best', but last, last_ema"):
        load_model(copied)


def test_a_file_that_does_not_say_what_it_is_of_is_refused_with_a_cure(reference, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(load_file(reference / "weights" / "last.safetensors"), path)
    torch.save(load_file(path), tmp_path / "w.pth")
    for found in (path, tmp_path / "w.pth", reference / "checkpoints" / "latest"):
        with pytest.raises(CheckpointError, match=r"does not say which model it is of; give the run folder, or a"):
            load_model(found)


def with_tensor(path, key, tensor):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({**load_file(path), key: tensor}, path, metadata)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("head.fc.weight", (21, 8), r"head\.fc\.weight is \[21, 8\], in convnext with 3 classes \[3, 8\]"),
        ("head.extra", (2,), r"head\.extra is \[2\], in convnext with 3 classes not there"),
    ],
)
def test_weights_of_another_model_are_refused(copied, key, shape, message):
    path = copied / "weights" / "best.safetensors"
    with_tensor(path, key, torch.zeros(shape))
    with pytest.raises(ModelError, match=message):
        load_model(copied)


def test_a_damaged_file_is_refused_wherever_it_is_cut(copied):
    path = copied / "weights" / "best.safetensors"
    content = path.read_bytes()
    for size in (*range(0, 60, 7), *range(100, len(content), 997)):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"best\.safetensors is (damaged or incomplete|no file of weights)"):
            load_model(copied)


def test_a_model_that_is_not_known_here_is_named(copied):
    from safetensors import safe_open

    path = copied / "weights" / "best.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    for model, reason in (
        ({"name": "convnext_of_a_plugin"}, "no model is named 'convnext_of_a_plugin'"),
        ({"name": "convnext", "depths": 3, "dims": [1, 1, 1, 1]}, "a list"),
        ({"name": "timm/convnext_atto", "options": {"pretrained": True}}, "pretrained is not an option"),
    ):
        save_file(load_file(path), path, {**metadata, "model": json.dumps(model)})
        with pytest.raises(ModelError, match=rf"best\.safetensors cannot be built here: .*{reason}"):
            load_model(path)


def test_a_plugin_s_model_is_found_through_the_run_s_recipe(train, tmp_path, fresh_registry):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from convrun.registry import register\n"
        "@register('model', 'flat')\n"
        "def flat(num_classes):\n"
        "    'One linear layer.'\n"
        "    import torch\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))\n"
    )
    fresh_registry.all()
    from convrun.plugins import load_plugins

    load_plugins([str(plugin)])
    outcome = train(f"plugins=[{plugin}]", "model=flat", "optimizer.layer_decay=1")
    assert load_model(outcome.folder).model(torch.zeros(1, 3, 8, 8)).shape == (1, 3)


def test_what_is_not_there_or_no_run_is_said(tmp_path):
    with pytest.raises(UsageError, match="there is no run folder or file nowhere"):
        load_model("nowhere")
    with pytest.raises(UsageError, match=r"is no run folder: it has no recipe\.yaml"):
        load_model(tmp_path)


def test_timms_weights_are_loaded_as_timm_evaluates_them(tmp_path, monkeypatch):
    """From its cache; here a file in the place of the hub's."""
    source = timm.create_model("convnext_atto", num_classes=1000)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr("convrun.weights.hub.hub_file", lambda *_: tmp_path / "model.safetensors")
    loaded = load_model("timm:convnext_atto.d2_in1k")
    assert (loaded.input_size, len(loaded.classes), loaded.classes[0]) == (288, 1000, "n01440764")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    config = timm.get_pretrained_cfg("convnext_atto.d2_in1k").to_dict()
    theirs = timm.data.create_transform(
        288, interpolation=config["interpolation"], mean=config["mean"], std=config["std"],
        crop_pct=config["test_crop_pct"],
    )  # fmt: skip
    torch.testing.assert_close(loaded.transform(image), theirs(image), atol=1e-6, rtol=0)
    with torch.no_grad():
        expected = source.eval()(theirs(image)[None])
        torch.testing.assert_close(loaded.model(loaded.transform(image)[None]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "convnext_atto.nowhere",
            "timm has no pretrained weights 'convnext_atto.nowhere'; did you mean timm:convnext",
        ),
        ("convnextv2_atto.fcmae", "has no classifier; train one from it: init={from: timm:convnextv2_atto.fcmae"),
    ],
)
def test_weights_that_timm_has_not_or_that_classify_nothing_are_refused(name, message):
    with pytest.raises(ConvrunError, match=message):
        load_model(f"timm:{name}")


def test_a_loaded_model_can_start_a_run(reference):
    loaded = load_model(reference)
    line = load_initial(loaded.model, Init(from_=str(reference / "weights" / "best.safetensors")), 3)
    assert "(the model's own names)" in line
