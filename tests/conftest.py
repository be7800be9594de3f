"""A recipe that trains in half a second with everything on, and ways to run it."""

import functools
import gc
import io
import os
import signal
import sys
import time

import hypothesis
import pytest

from convrun.process.threads import limit_spinning

# The same examples at each run, so that a red test stays red; HYPOTHESIS_PROFILE=explore draws others.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("explore", derandomize=False, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Tests run two at a time, subprocesses among them: one thread each, and none that spins while it waits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
limit_spinning()

# 8 steps an epoch (3 of 67 images are left out), 16 in all; logged, evaluated and saved at steps of other rhythms.
TINY = """
name: tiny
seed: 3
input_size: 8
model: {name: convnext, depths: [1, 1, 1, 1], dims: [4, 8, 8, 8], patch_size: 1, kernel_size: 3, drop_path_rate: 0.2}
data: {name: synthetic, train_images: 67, val_images: 10, num_classes: 3, image_size: 8, workers: 0}
augmentations:
  - {name: random_crop, padding: 1}
  - {name: horizontal_flip}
  - {name: random_erasing, probability: 0.5}
  - {name: mixup_cutmix, mixup_alpha: 0.8, cutmix_alpha: 1.0}
loss: {name: cross_entropy, label_smoothing: 0.1}
optimizer: {name: adamw, lr: 2e-2, layer_decay: 0.8}
scheduler: {name: cosine, warmup_steps: 3}
training: {epochs: 2, batch_size: 8, micro_batch: 4, clip_grad_norm: 1.0}
ema: {decay: 0.9}
evaluation: {every_steps: 5, report: ema, batch_size: 4}
logging: {every_steps: 3, to: [jsonl]}
checkpoints: {every_steps: 4, keep: {last: 2}}
callbacks:
  - {name: early_stopping, metric: loss, patience: 100}
"""


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_file):
    """Loads the tiny recipe with overrides."""
    from convrun.recipe import load_recipe

    return lambda *overrides: load_recipe(tiny_file, overrides, plugins=False)


@pytest.fixture(scope="session")
def train_in(tiny):
    """Trains the tiny recipe in this process; `at` is a dict {step: function} called once these steps are done."""
    import torch

    from convrun.display.screen import Screen
    from convrun.training.run import run

    torch.set_num_threads(1)

    class Listening(Screen):
        def advance(self, step):
            super().advance(step)
            self.at.get(step, lambda: None)()

    def start(output, *overrides, at=None, **keys):
        screen = Listening(io.StringIO())
        screen.at = at or {}
        return run(tiny(*overrides), output, device="cpu", screen=screen, **keys)

    return start


@pytest.fixture
def train(train_in, tmp_path):
    """`train_in` the folder tmp_path / "run"."""
    return functools.partial(train_in, tmp_path / "run")


@pytest.fixture(scope="session")
def reference(train_in, tmp_path_factory):
    """The folder of a run of the tiny recipe that nobody stopped; only to be read."""
    folder = tmp_path_factory.mktemp("runs") / "reference"
    train_in(folder)
    return folder


@pytest.fixture(scope="session")
def rows():
    """The rows of a run's metrics.jsonl, without what a clock measured."""
    from tests.campaign.comparison import rows

    return rows


@pytest.fixture(scope="session")
def saved():
    """The content of a run's newest checkpoint as {path of keys: value}."""
    from convrun import checkpoints

    def flat(value, path=""):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        return {path: value} if items is None else {k: v for i, x in items for k, v in flat(x, f"{path}/{i}").items()}

    def read(folder):
        return flat(checkpoints.load((folder / "checkpoints" / "latest").resolve()))

    return read


@pytest.fixture
def forked(tmp_path):
    """Starts convrun in a fork; what it prints goes to `forked.output`."""
    from tests.campaign.process import Start, import_what_forks_need

    import_what_forks_need()
    output = tmp_path / "output.txt"

    def start(*arguments):
        return Start(arguments, output)

    start.output = output
    return start


@pytest.fixture
def no_room_for(monkeypatch):
    """The next attempt to write the checkpoint of a step finds a device that is full."""
    import torch

    save = torch.save

    def fill(step):
        def to_full(content, file):
            if f".step-{step}." in str(getattr(file, "name", "")):
                full = os.open("/dev/full", os.O_WRONLY)
                os.dup2(full, file.fileno())
                os.close(full)
                monkeypatch.setattr(torch, "save", save)
            save(content, file)

        monkeypatch.setattr(torch, "save", to_full)

    return fill


@pytest.fixture
def wait_until():
    """Waits for a condition, 60 seconds at most."""

    def wait(condition):
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.002)

    return wait


@pytest.fixture
def fresh_registry(monkeypatch):
    """The registry, whose new components, plugins and failures are gone when the test ends."""
    from convrun import plugins
    from convrun.registry import registry

    registry.all()
    held = {key: list(found) for key, found in registry._components.items()}
    monkeypatch.setattr(registry, "_components", held)
    monkeypatch.setattr(registry, "failures", {})
    monkeypatch.setattr(registry, "searched", [])
    monkeypatch.setattr(plugins, "_loaded", set())
    return registry


@pytest.fixture
def convrun(monkeypatch, capsys, fresh_registry):
    """Runs `convrun ARGUMENTS` in this process; gives (exit code, standard output, standard error)."""
    from convrun.entry import main
    from convrun.process.signals import STOPPING

    def answer(*arguments):
        monkeypatch.setattr(sys, "argv", ["convrun", *map(str, arguments)])
        capsys.readouterr()
        handlers = {number: signal.getsignal(number) for number in STOPPING}
        try:
            with pytest.raises(SystemExit) as end:
                main()
        finally:  # `run` leaves signals ignored, `validate` collects no garbage: their process is over
            gc.enable()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return end.value.code or 0, *capsys.readouterr()

    return answer
