"""Bad data, disks and checkpoints through the command line: one message, the right exit code, nothing half-written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.sealing import save_sealed

FOLDER_KEYS = [
    "input_size=16",
    "scheduler.warmup_steps=0",
    "training={batch_size: 4, epochs: 1, micro_batch: 2}",
    "augmentations=[{name: random_resized_crop}]",
    "data={name: image_folder, root: data, workers: 0}",
]


@pytest.fixture
def tree(tmp_path):
    """An image folder with 2 classes: 4 training and 2 validation images each."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(draws.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
    return tmp_path / "data"


@pytest.fixture
def convrun(forked, tiny_file, tmp_path, monkeypatch):
    """`convrun run tiny.yaml …` in tmp_path; gives the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(*arguments, recipe=tiny_file):
        forked.output.unlink(missing_ok=True)
        code = forked("run", recipe, "--no-plugins", *arguments).wait()
        return code, forked.output.read_text()

    return run


def assert_refused(result, exit_code, *parts):
    code, text = result
    assert code == exit_code, text
    assert "Traceback" not in text
    assert text.count("error: ") <= 1, text
    for part in parts:
        assert part in text
    return text


def test_a_good_tree_trains(convrun, tree):
    code, text = convrun(*FOLDER_KEYS, "--output", "run")
    assert code == 0, text
    assert "run folder  run\n" in text


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda tree: tree.rename(tree.with_name("elsewhere")), ["the folder data does not exist; set data.root="]),
        (lambda tree: (tree / "val").rename(tree / "test"), ["data has no folder val (it has test, train)"]),
        (lambda tree: [p.unlink() for p in (tree / "train" / "dog").iterdir()], ["no image in class folder dog"]),
        (lambda tree: (tree / "val" / "dog").rename(tree / "val" / "cow"),
         ["data: images of class cow are in val alone"]),
        (lambda tree: [os.replace(tree / "train", tree / "val" / "x"), (tree / "train").write_text("")],
         ["data has no folder train"]),
    ],
    ids=["missing folder", "no val", "empty class", "a class that only val has", "a file in the way"],
)  # fmt: skip
def test_a_tree_that_is_wrong_is_told_and_no_folder_is_made(spoil, parts, convrun, tree, tmp_path):
    spoil(tree)
    text = assert_refused(convrun(*FOLDER_KEYS), 1, *parts)
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_the_wrong_number_of_classes_is_told_with_the_override(convrun, tree, tmp_path):
    text = assert_refused(
        convrun(*FOLDER_KEYS, "data.num_classes=3"), 1, "num_classes is 3, found 2", "data.num_classes=2"
    )
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_file_that_is_no_image_is_named(workers, split, convrun, tree):
    broken = tree / split / "dog" / "1.jpg"
    broken.write_bytes(b"not an image")
    code, text = convrun(*FOLDER_KEYS, f"data.workers={workers}", "--output", "run")
    assert code == 1
    assert "Traceback" not in text
    *_, last = text.splitlines()
    assert last.startswith(f"error: split {split}, image data/{split}/dog/1.jpg cannot be decoded: ")
    assert text.count("error: ") == 1
    assert json.loads(Path("run/status.json").read_text())["state"] == "failed"


def test_it_goes_on_once_the_file_is_mended(convrun, tree):
    image = (tree / "val" / "dog" / "1.jpg").read_bytes()
    (tree / "val" / "dog" / "1.jpg").write_bytes(b"not an image")
    assert convrun(*FOLDER_KEYS, "--output", "run")[0] == 1
    (tree / "val" / "dog" / "1.jpg").write_bytes(image)
    code, text = convrun(*FOLDER_KEYS, "--output", "run")
    assert code == 0, text


def test_a_batch_larger_than_the_data_points_into_the_recipe(convrun, tree, tmp_path):
    assert_refused(
        convrun(*FOLDER_KEYS, "training.batch_size=64"), 2, "batch_size can be at most 8", "training.batch_size=64"
    )
    assert not (tmp_path / "runs").exists()


def test_an_output_folder_that_cannot_be_written_is_told(convrun, tmp_path):
    (tmp_path / "taken").write_text("a file")
    assert_refused(
        convrun("--output", "taken"), 1, "the run folder taken cannot be written: File exists; choose another"
    )
    assert_refused(convrun("--output", "taken/run"), 1, "taken/run cannot be written: Not a directory; choose another")
    assert_refused(convrun("--output", "/proc/run"), 1, "the run folder /proc/run cannot be written: ")
    assert (tmp_path / "taken").read_text() == "a file"


def test_somebody_elses_folder_is_left_alone(convrun, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    assert_refused(convrun("--output", "mine"), 1, "mine is neither empty nor a run folder (it holds notes.txt)")
    assert os.listdir(tmp_path / "mine") == ["notes.txt"]


def test_a_damaged_a_foreign_and_an_evil_checkpoint_are_told(convrun, train, tmp_path):
    train("scheduler=constant")
    newest = tmp_path / "run" / "checkpoints" / "step-16.pt"
    whole = newest.read_bytes()
    for content in (whole[:-700], b"", b"\x00" * 5000):
        newest.write_bytes(content)
        code, text = convrun("scheduler=constant", "--output", "run")
        assert code == 0
        assert "checkpoints/step-16.pt is damaged (" in text
        assert "goes on after step 12 of 16" in text
    save_sealed({"model": {}, "state": print}, newest)
    code, text = convrun("scheduler=constant", "--output", "run")
    assert code == 0
    assert "it holds more than tensors and plain values" in text
    code, text = convrun("scheduler=constant", "--output", "run")
    assert (code, text.splitlines()[0]) == (0, "this run is finished already, after step 16")


def test_a_changed_recipe_and_a_taken_folder_are_told(convrun, train, tmp_path):
    train()
    assert_refused(convrun("seed=9", "--output", "run"), 1, "seed: 3 before, 9 now", "--allow-change seed")
    assert_refused(convrun("--output", "run", "--resume", "never"), 1, "--resume never: run holds a run already")
    assert_refused(convrun("--output", "new", "--resume", "must"), 1, "--resume must: new holds no checkpoint")
    assert not (tmp_path / "new").exists()
    code, text = convrun("--output", "run", recipe="run")
    assert (code, text.splitlines()[0]) == (0, "this run is finished already, after step 16")


def test_divergence_ends_with_its_own_exit_code(convrun):
    wild = ["optimizer={name: sgd, lr: 1e20}", "scheduler=constant", "training.clip_grad_norm=null"]
    code, text = convrun(*wild, "--output", "run")
    assert code == 3
    assert any(line.startswith("error: ") for line in text.splitlines())
    assert "convrun run run training.clip_grad_norm=1" in text
    assert "Traceback" not in text


def test_no_gpu_is_told(convrun, tmp_path):
    assert_refused(convrun("--device", "cuda"), 2, "--device cuda: torch sees no GPU here")
    assert not (tmp_path / "runs").exists()
