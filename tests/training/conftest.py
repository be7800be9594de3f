"""The loop of the tiny recipe, whose every step can be looked at, and a fork that waits anywhere in the code."""

import dataclasses
import math
import pkgutil
import signal
import time

import pytest
import torch


@dataclasses.dataclass
class Recorder:
    """A recorder that remembers all it is told."""

    rows: list = dataclasses.field(default_factory=list)
    steps: list = dataclasses.field(default_factory=list)
    saved: list = dataclasses.field(default_factory=list)
    said: list = dataclasses.field(default_factory=list)
    non_finite: list = dataclasses.field(default_factory=list)
    loop: object = None

    def log(self, row):
        self.rows.append(row)

    def say(self, text):
        self.said.append(text)

    def note_skipped(self, images):
        raise AssertionError(f"{images} cannot be read")

    def note_non_finite(self, step):
        self.non_finite.append(step)

    def advance(self, step):
        state = self.loop.state
        self.steps.append(
            {
                "step": step,
                "lr": [group["lr"] for group in state.optimizer.param_groups],
                "weights": {name: p.detach().clone() for name, p in state.model.named_parameters()},
                "ema": {name: t.clone() for name, t in state.ema.state_dict().items()} if state.ema else None,
                "training": state.model.training,
            }
        )

    def save(self, state):
        self.saved.append(state.progress.step)

    def losses(self):
        return [row["loss"] for row in self.rows if row["kind"] == "train"]


@pytest.fixture
def make_loop(tiny):
    """The loop of the tiny recipe with overrides, as a run builds it; its recorder remembers all it is told."""
    from convrun.plan import Machine, make_plan
    from convrun.training.building import build_loop
    from convrun.training.model import build_model, placed
    from convrun.training.run import open_data

    torch.set_num_threads(1)

    def make(*overrides, loss=None):
        recipe = tiny(*overrides)
        plan = make_plan(recipe, Machine(device="cpu", cores=1))
        recorder = Recorder()
        model = placed(build_model(plan), plan, torch.device("cpu"))
        loop = recorder.loop = build_loop(plan, model, open_data(recipe.data), None, recorder)
        if loss is not None:
            loop.step.loss = loss
        return loop

    return make


@pytest.fixture
def cosine_lr():
    """The tiny recipe's learning rates by the released code: linspace over the warm-up, then the cosine."""

    def lr(step, total=16, warmup=3, peak=2e-2):
        if step < warmup:
            return peak * step / (warmup - 1)
        return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2

    return lr


class Gate:
    """A place in the code where a fork waits: it says that it is there, and goes on when it may."""

    def __init__(self, folder):
        self.reached, self.may_go = folder / "reached", folder / "may_go"

    def wait(self):
        self.reached.write_text("")
        while not self.may_go.exists():
            time.sleep(0.005)


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


@pytest.fixture
def forked_with_gate(forked, gate, tiny_file, tmp_path, wait_until):
    """A fork of `convrun run` with the gate in the place of, or before, a function; waits until it is reached."""

    def start(where, *overrides, when=lambda *_: True):
        module, _, name = where.rpartition(".")
        target = pkgutil.resolve_name(module)
        original = getattr(target, name)

        def gated(*arguments, **keys):
            if when(*arguments):
                gate.wait()
            return original(*arguments, **keys)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(target, name, gated)
            process = forked(
                "run", tiny_file, *overrides, "--output", tmp_path / "run", "--device", "cpu", "--no-plugins"
            )
        wait_until(gate.reached.exists)
        return process

    return start


@pytest.fixture
def ctrl_c_twice(monkeypatch, tmp_path, wait_until):
    """Sends Ctrl-C to a fork that is made in this test, and another once the first was heard: two at a time are one.

    With a file, the second waits until that is there, too.
    """
    from convrun.process.signals import StopRequest

    heard, note = tmp_path / "heard", StopRequest._note

    def note_and_tell(stop, number, frame):
        note(stop, number, frame)
        heard.touch()

    monkeypatch.setattr(StopRequest, "_note", note_and_tell)

    def send(process, sign=heard):
        process.send(signal.SIGINT)
        wait_until(lambda: heard.exists() and sign.exists())
        process.send(signal.SIGINT)

    return send
