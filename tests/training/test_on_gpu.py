"""What only a GPU can show; skipped where there is none. On one: pytest tests/training/test_on_gpu.py alone will do."""

import functools
import io
import json
import re
import shlex
import signal

import pytest
import torch

from convrun.errors import DeviceMemoryError, Preempted

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

# Draws on a GPU are others than on the CPU, and its convolutions round to TF32.
ALIKE = ("augmentations=[]", "model.drop_path_rate=0", "optimizer.lr=1e-3")
TOLERANCE = 1e-2
# Micro-batches of 128, large enough that activations outweigh all else: a third of the memory is enough for 32.
LARGE = ("input_size=64", "data.image_size=64", "model.depths=[3, 3, 3, 3]", "model.dims=[64, 64, 64, 64]", *ALIKE,
         "data.train_images=512", "training.batch_size=256", "training.epochs=4", "evaluation=null", "callbacks=[]",
         "training.precision=float32")  # fmt: skip


@pytest.fixture
def train(tiny, tmp_path):
    """Trains the tiny recipe on the GPU; `at` is a dict {step: function} called once these steps are done."""
    from convrun.display.screen import Screen
    from convrun.training.run import run

    class Listening(Screen):
        def advance(self, step):
            super().advance(step)
            self.at.get(step, lambda: None)()

    def start(name, *overrides, at=None, device="cuda"):
        screen = Listening(io.StringIO())
        screen.at = at or {}
        run(tiny(*overrides), tmp_path / name, device=device, screen=screen)
        return tmp_path / name

    return start


@pytest.fixture
def memory():
    """Memory for so many bytes of tensors from now on; all of it again when the test ends."""

    def limit(number):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, number / torch.cuda.mem_get_info()[1]))

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.fixture
def too_little(train, memory):
    """Leaves a run of LARGE a third of the memory that it takes."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    train("whole", *LARGE, "training.micro_batch=auto")
    return functools.partial(memory, torch.cuda.max_memory_reserved() // 3)


def losses(rows, folder):
    return [row["loss"] for row in rows(folder) if row["kind"] == "train"]


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_gpu_finds_the_losses_of_the_cpu(precision, train, rows):
    ours = losses(rows, train("gpu", *ALIKE, f"training.precision={precision}"))
    theirs = losses(rows, train("cpu", *ALIKE, device="cpu"))
    assert ours == pytest.approx(theirs, rel=TOLERANCE)


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_run_that_is_stopped_goes_on(precision, train, rows):
    keys = (f"training.precision={precision}", "optimizer.lr=1e-3")
    whole = train("whole", *keys)
    with pytest.raises(Preempted):
        train("run", *keys, at={6: functools.partial(signal.raise_signal, signal.SIGTERM)})
    folder = train("run", *keys)
    assert losses(rows, folder) == pytest.approx(losses(rows, whole), rel=TOLERANCE)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_between_rows_the_host_never_waits_for_the_device(precision, train):
    """Nor to see whether all is finite. With fp16 torch's GradScaler waits itself."""
    seldom = ("logging.every_steps=100", "evaluation=null", "callbacks=[]", "checkpoints.every_steps=100")
    watch = {6: lambda: torch.cuda.set_sync_debug_mode("error"), 14: lambda: torch.cuda.set_sync_debug_mode("default")}
    try:
        train("run", *seldom, f"training.precision={precision}", at=watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_step_that_does_not_fit_is_retried_in_parts(train, too_little, rows, tmp_path):
    folder = train("run", *LARGE, "training.micro_batch=auto", at={3: too_little})
    events = [row for row in rows(folder) if row["kind"] == "event"]
    assert [(row["event"], row["step"]) for row in events][:1] == [("out_of_memory", 4)]
    assert losses(rows, folder) == pytest.approx(losses(rows, tmp_path / "whole"), rel=TOLERANCE)


def test_a_fixed_micro_batch_is_told_what_fits(train, too_little, convrun):
    keys = (*LARGE, "training.micro_batch=128")
    with pytest.raises(DeviceMemoryError, match=r"step 4: micro-batches of 128 images do not fit") as caught:
        train("run", *keys, at={3: too_little})
    command = shlex.split(re.split("all is saved, go on with: convrun ", str(caught.value))[1])
    code, _, errors = convrun(*command, "--no-plugins", "--device", "cuda")
    assert code == 0, errors


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_what_one_does(train, tiny_file, rows, convrun, tmp_path):
    keys = (*ALIKE, "training.micro_batch=4", "training.precision=float32")
    alone = train("alone", *keys)
    code, _, errors = convrun("run", tiny_file, "--no-plugins", "--devices", "2", "-o", tmp_path / "two", *keys)
    assert code == 0, errors
    assert json.loads((tmp_path / "two" / "plan.json").read_text())["processes"] == 2
    assert losses(rows, tmp_path / "two") == pytest.approx(losses(rows, alone), rel=TOLERANCE)
