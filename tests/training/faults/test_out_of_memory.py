"""Out of memory: the step is retried in smaller parts and the same draws, or the message says what fits."""

import errno
import functools
import json
import shlex
import signal
import time

import pytest
import torch
from torch import nn

from convrun.errors import DeviceMemoryError, Preempted
from convrun.training.faults.memory import fits, is_out_of_memory, largest_that_fits, more_parts

AUTO = ("training.micro_batch=auto", "evaluation.batch_size=auto")
MODEL = "model={name: greedy, drop: 0.3}"


class Greedy(nn.Module):
    """A small model with dropout, on a device with memory for so many images at a time."""

    most = 1000
    most_in_evaluation = 1000

    def __init__(self, num_classes, drop):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.GELU(), nn.Dropout(drop))
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        if len(images) > (self.most if self.training else self.most_in_evaluation):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return self.head(self.layers(images))


@pytest.fixture(autouse=True)
def greedy(fresh_registry, monkeypatch):
    """The model as a component; the limits are as they were when the test ends."""
    from convrun.registry import register

    @register("model", "greedy")
    def model(num_classes, *, drop: float = 0.0):
        """A model for a test."""
        return Greedy(num_classes, drop)

    monkeypatch.setattr(Greedy, "most", 1000)
    monkeypatch.setattr(Greedy, "most_in_evaluation", 1000)
    return Greedy


@pytest.fixture
def greedy_run(train_in):
    keys = (MODEL, "optimizer.layer_decay=1", *AUTO)
    return lambda folder, *more, **rest: train_in(folder, *keys, *more, **rest)


def without_events(rows):
    return [row for row in rows if row["kind"] != "event"]


def assert_close(ours, theirs):
    assert len(ours) == len(theirs)
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        for key, value in other.items():
            assert row[key] == (pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value), key


def test_the_numbers_of_parts_divide_the_batch():
    assert [more_parts(12, n) for n in (1, 2, 4, 6, 12)] == [2, 4, 12, 12, None]
    assert [more_parts(7, n) for n in (1, 7)] == [7, None]
    assert more_parts(1, 1) is None


def test_the_largest_part_that_fits_is_found_by_trying():
    tried = []

    def does_fit(images):
        tried.append(images)
        return images <= 20

    assert largest_that_fits(128, does_fit) == 16
    assert tried == [64, 32, 16]
    assert largest_that_fits(64, lambda n: does_fit(n + 20)) is None
    assert largest_that_fits(40, lambda n: does_fit(n + 19), least=2) is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
            "tried to allocate 1000000000000 bytes."
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("could not create a primitive"),
        MemoryError("std::bad_alloc"),
    ],
)
def test_signs_of_too_little_memory(error):
    assert is_out_of_memory(error)
    assert not fits(functools.partial(raised, error))


def raised(error):
    raise error


def test_a_real_allocation_that_fails_is_such_a_sign():
    assert not fits(lambda: torch.empty(1 << 60, dtype=torch.uint8))


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="shapes"):
        fits(functools.partial(raised, RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
    with pytest.raises(RuntimeError, match="descriptor"):  # what it cannot compute at all
        fits(functools.partial(raised, RuntimeError("could not create a primitive descriptor for a convolution")))


def test_what_did_not_fit_is_free_again():
    import weakref

    held = []

    def attempt():
        tensor = torch.zeros(10)
        held.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError

    assert not fits(attempt)
    assert held[0]() is None


@pytest.mark.parametrize("most", [1, 2, 5])
def test_without_draws_in_the_model_nothing_changes_but_the_order_of_summation(
    most, greedy_run, rows, greedy, tmp_path
):
    keys = ("model.drop=0", "training.clip_grad_norm=null", "optimizer={name: sgd, lr: 1e-2}")
    greedy_run(tmp_path / "reference", *keys)
    greedy.most = most
    greedy_run(tmp_path / "run", *keys)
    assert_close(without_events(rows(tmp_path / "run")), rows(tmp_path / "reference"))


def test_a_run_cut_up_on_the_way_is_one_that_was_so_from_the_start(make_loop, greedy):
    keys = (MODEL, "optimizer.layer_decay=1", *AUTO)
    begun, cut = make_loop(*keys), make_loop(*keys)
    begun.progress.forward_parts = 4
    begun.run()
    greedy.most = 2
    cut.run()
    assert cut.progress.forward_parts == 4
    for name, tensor in begun.state.model.state_dict().items():
        assert torch.equal(cut.state.model.state_dict()[name], tensor), name


def test_the_record_says_so_once(greedy_run, rows, greedy, tmp_path):
    def shrink():
        greedy.most = 4

    greedy_run(tmp_path / "run", "logging.to=[jsonl, csv, tensorboard, console]", at={5: shrink})
    events = [row for row in rows(tmp_path / "run") if row["kind"] == "event"]
    assert events == [
        {"kind": "event", "event": "out_of_memory", "step": 6, "epoch": 0.625, "forward_parts": 2},
    ]
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("step 6 ran out of memory and is retried; from here on each micro-batch goes through the model "
                     "in 2 parts") == 1  # fmt: skip
    assert (tmp_path / "run" / "event.csv").read_text() == "event,step,epoch,forward_parts\nout_of_memory,6,0.625,2\n"


@pytest.mark.parametrize("step", [5, 6, 9])
def test_a_run_that_was_cut_up_resumes_bit_for_bit(step, greedy_run, rows, saved, greedy, tmp_path):
    def shrink():
        greedy.most = 4

    logs = "logging.to=[jsonl, csv]"
    greedy_run(tmp_path / "reference", logs, at={5: shrink})
    greedy.most = 1000
    stop = functools.partial(signal.raise_signal, signal.SIGTERM)
    with pytest.raises(Preempted):
        greedy_run(tmp_path / "run", logs, at={5: shrink, step: stop} if step > 5 else {5: lambda: (shrink(), stop())})
    greedy_run(tmp_path / "run", logs)
    assert rows(tmp_path / "run") == rows(tmp_path / "reference")
    ours, theirs = saved(tmp_path / "run"), saved(tmp_path / "reference")
    assert ours["/state/forward_parts"] == 2
    for key in theirs:
        same = torch.equal if isinstance(theirs[key], torch.Tensor) else lambda a, b: a == b
        assert same(ours[key], theirs[key]), key
    assert (tmp_path / "run" / "event.csv").read_text() == (tmp_path / "reference" / "event.csv").read_text()


class Killed(BaseException):
    pass


def test_a_kill_after_the_event_leaves_it_on_record_once(greedy_run, rows, greedy, tmp_path):
    def shrink():
        greedy.most = 4

    greedy_run(tmp_path / "reference", at={5: shrink})
    greedy.most = 1000
    with pytest.raises(Killed):  # after the checkpoint of step 4
        greedy_run(
            tmp_path / "run", "evaluation.every_steps=100", at={5: shrink, 7: functools.partial(raised, Killed())}
        )
    assert [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "event"] == [6]
    greedy.most = 1000
    greedy_run(tmp_path / "run", "evaluation.every_steps=100", at={5: shrink})
    assert [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "event"] == [6]


def test_an_evaluation_is_cut_up_and_no_number_changes(greedy_run, rows, saved, greedy, tmp_path):
    greedy_run(tmp_path / "reference")
    greedy.most_in_evaluation = 3
    greedy_run(tmp_path / "run")
    assert_close(rows(tmp_path / "run"), rows(tmp_path / "reference"))
    assert saved(tmp_path / "run")["/state/evaluation_parts"] == 4
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("out of memory in the evaluation: it is retried") == 2  # 2 parts, then 4; never again


def test_one_image_that_does_not_fit_ends_the_run_with_all_saved(greedy_run, saved, greedy, tmp_path):
    def shrink():
        greedy.most = 0

    with pytest.raises(
        DeviceMemoryError, match=r"out of memory in step 7, with one image at a time; take a smaller"
    ) as e:
        greedy_run(tmp_path / "run", at={6: shrink})
    assert e.value.exit_code == 1
    assert saved(tmp_path / "run")["/state/step"] == 6
    greedy.most = 1000
    assert greedy_run(tmp_path / "run").step == 16


@pytest.mark.parametrize("when", [0, 6])
def test_a_fixed_micro_batch_is_told_what_fits_and_the_command_goes_on(
    when, convrun, train_in, saved, greedy, tmp_path
):
    def shrink():
        greedy.most = 5

    if when == 0:
        shrink()
    keys = (MODEL, "optimizer.layer_decay=1", "training.micro_batch=8", "evaluation.batch_size=4")
    with pytest.raises(DeviceMemoryError, match=rf"step {when + 1}: micro-batches of 8 images do not fit") as caught:
        train_in(tmp_path / "run", *keys, at={when: shrink})
    assert "training.micro_batch=4 does (tried)" in str(caught.value)
    assert saved(tmp_path / "run")["/state/step"] == when
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"
    command = shlex.split(str(caught.value).split("go on with: convrun ")[1])
    code, _, errors = convrun(*command, "--no-plugins", "--device", "cpu")
    assert code == 0, errors
    assert saved(tmp_path / "run")["/state/step"] == 16


def test_what_the_full_disk_did_not_take_is_not_called_saved(train_in, greedy, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def shrink_and_fill():
        greedy.most = 5
        while json.loads((tmp_path / "run" / "status.json").read_text()).get("saved_step") != 4:
            time.sleep(0.01)  # it is in flight still
        monkeypatch.setattr(torch, "save", full)

    keys = (MODEL, "optimizer.layer_decay=1", "training.micro_batch=8", "evaluation.every_steps=100")
    with pytest.raises(
        DeviceMemoryError, match=r"step 7.*what came after step-4.pt is lost, go on from it with: "
    ) as e:
        train_in(tmp_path / "run", *keys, at={6: shrink_and_fill})
    assert "all is saved" not in str(e.value)


def test_finding_out_what_fits_changes_nothing(make_loop, greedy):
    loop = make_loop(MODEL, "optimizer.layer_decay=1", "training.micro_batch=8")
    before = {name: tensor.clone() for name, tensor in loop.state.model.state_dict().items()}
    greedy.most = 2
    with pytest.raises(DeviceMemoryError, match=r"training.micro_batch=2 does"):
        loop.run()
    assert all(torch.equal(tensor, before[name]) for name, tensor in loop.state.model.state_dict().items())
    assert all(p.grad is None for p in loop.state.model.parameters())
    assert loop.state.figures.steps == 0
    assert loop.recorder.saved == [0]


def test_a_part_of_one_image_is_not_named_where_images_are_mixed(make_loop, greedy):
    greedy.most = 1
    keys = (MODEL, "optimizer.layer_decay=1", "training.micro_batch=8")
    with pytest.raises(DeviceMemoryError, match=r"and neither does any part of one"):
        make_loop(*keys).run()
    with pytest.raises(DeviceMemoryError, match=r"training.micro_batch=1 does"):
        make_loop(*keys, "augmentations=[]").run()


def test_a_fixed_evaluation_batch_is_told_so_and_the_state_is_saved(convrun, train_in, saved, greedy, tmp_path):
    greedy.most_in_evaluation = 3
    keys = (MODEL, "optimizer.layer_decay=1", "evaluation.batch_size=4")
    with pytest.raises(DeviceMemoryError, match=r"in the evaluation: batches of 4 images do not fit") as caught:
        train_in(tmp_path / "run", *keys)
    assert saved(tmp_path / "run")["/state/step"] == 5
    command = shlex.split(str(caught.value).split("go on with: convrun ")[1])
    code, _, errors = convrun(*command, "--no-plugins", "--device", "cpu")
    assert code == 0, errors


def test_an_update_that_does_not_fit_saves_nothing(make_loop, greedy, monkeypatch):
    loop = make_loop(MODEL, "optimizer.layer_decay=1", *AUTO)
    step = loop.state.optimizer.step

    def short(*arguments):
        if loop.progress.step == 5:
            raise torch.OutOfMemoryError
        return step(*arguments)

    monkeypatch.setattr(loop.state.optimizer, "step", short)
    with pytest.raises(DeviceMemoryError, match=r"in the optimizer's update of step 6"):
        loop.run()
    assert max(loop.recorder.saved) == 5


def test_a_retried_fp16_step_keeps_the_loss_scale_and_what_it_counts(make_loop, greedy, monkeypatch):
    import convrun.training.step as module

    keys = (MODEL, "optimizer.layer_decay=1", *AUTO, "training.precision=fp16", "model.drop=0")
    undisturbed, loop = make_loop(*keys), make_loop(*keys)
    undisturbed.run()
    norms, failed = module.gradient_norms, []

    def short(*arguments):  # by then the gradients are unscaled already
        if loop.progress.step == 5 and not failed:
            failed.append(loop.state.precision.scaler.state_dict())
            raise torch.OutOfMemoryError
        return norms(*arguments)

    monkeypatch.setattr(module, "gradient_norms", short)
    loop.run()
    assert loop.progress.forward_parts == 2
    assert failed[0]["_growth_tracker"] > 0
    ours, theirs = (some.state.precision.scaler.state_dict() for some in (loop, undisturbed))
    assert ours == theirs
    assert loop.progress.overflow_steps == undisturbed.progress.overflow_steps
