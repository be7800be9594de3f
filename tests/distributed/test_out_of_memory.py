"""Out of memory on one of several ranks: all retry the step together, or end with what would fit."""

import functools
import json
import os
import shlex
import signal
import weakref

import pytest
import torch

import convrun.training.step
from convrun.data.pipeline import TrainingBatches
from convrun.distributed.failing.boards import FolderBoard
from convrun.distributed.replicas import GradientSums, Replicas
from convrun.training.precision import Precision
from convrun.training.step import Buffers, Step

# 2 processes × 128 images × 2 micro-batches a step, 10 steps; drop path would draw for each part again.
AUTO = ("training.batch_size=512", "data.train_images=512", "training.epochs=10", "training.micro_batch=auto",
        "evaluation.batch_size=auto", "data.val_images=200", "model.drop_path_rate=0", "callbacks=[]",
        "optimizer.lr=5e-3")  # fmt: skip
FIXED = ("training.batch_size=16", "training.micro_batch=8")


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def starve(most, where="forward", pass_number=1):
    """From now on this process has memory for so many images at a time.

    More fail in an evaluation, in the forward pass of training, or in the midst of its backward pass when gradients
    were sent already; the first time in the pass of this number.
    """

    def act():
        from convrun.models.staged import ConvNeXt

        forward, passes = ConvNeXt.forward, []

        def greedy(model, images):
            if model.training == (where != "evaluation") and len(images) > most:
                passes.append(len(images))
                if len(passes) >= pass_number:
                    fail(model)
            return forward(model, images)

        def fail(model):
            if where != "backward":
                out_of_memory()

            def in_backward(*_):
                handle.remove()
                out_of_memory()

            handle = model.stem.register_full_backward_hook(in_backward)

        ConvNeXt.forward = greedy

    return act


def send_small_buckets():
    """Gradients are sent a few weights at a time, so that some have gone when a backward pass fails."""
    from convrun.distributed import replicas

    replicas.DistributedDataParallel = functools.partial(replicas.DistributedDataParallel, bucket_cap_mb=1e-3)


def add_to_the_model(add):
    """From now on models that are made have more; `add` is called with each."""
    from convrun.models.staged import ConvNeXt

    make = ConvNeXt.__init__

    def make_with_more(model, **keys):
        make(model, **keys)
        add(model)

    ConvNeXt.__init__ = make_with_more


def keep_a_buffer():
    """The model has a buffer, which torch sends to all processes."""
    add_to_the_model(lambda model: model.register_buffer("seen", torch.zeros(1)))


def keep_an_idle_layer():
    """The model has weights that do not take part."""
    add_to_the_model(lambda model: model.register_module("idle", torch.nn.Linear(2, 2)))


def starve_before_the_model(*passes):
    """In these passes, counted from the start, memory is out before the model is called."""
    from convrun.training.step import Step

    augmented, done = Step.augmented, []

    def greedy(step, *arguments):
        done.append(1)
        if len(done) in passes:
            out_of_memory()
        return augmented(step, *arguments)

    Step.augmented = greedy


def starve_in(kind, name):
    """This method runs out of memory from now on."""

    def act():
        setattr(kind, name, lambda *_, **__: out_of_memory())

    return act


def starve_once_in(kind, name):
    """This function runs out of memory the next time it is called, and never again."""

    def act():
        function = getattr(kind, name)

        def greedy(*_, **__):
            setattr(kind, name, function)
            out_of_memory()

        setattr(kind, name, greedy)

    return act


def hold_one_set_of_buckets():
    """Memory does not suffice for the buckets of the failed step and of the new one at once."""
    from convrun.distributed import replicas

    held, make = weakref.WeakSet(), replicas.DistributedDataParallel

    def make_one(*arguments, **keys):
        if len(held):
            out_of_memory()
        held.add(shared := make(*arguments, **keys))
        return shared

    replicas.DistributedDataParallel = make_one


def end_as_a_child_of(folder):
    """The process is one of convrun's own, whose parent reads words in this folder."""
    os.environ["CONVRUN_BOARD"], os.environ["CONVRUN_PARENT"] = str(folder), str(os.getppid())


@pytest.fixture(scope="module")
def begin(ranks, tiny_file):
    """Trains in 2 processes."""

    def start(folder, *keys, at=None):
        at = {(rank, None): send_small_buckets for rank in range(2)} | (at or {})
        return ranks(2, [tiny_file, "--no-plugins", "--device", "cpu", "-o", folder, *keys], at=at)

    return start


@pytest.fixture(scope="module")
def undisturbed(begin, tmp_path_factory):
    """A run with memory enough."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    processes = begin(folder, *AUTO)
    assert processes.wait() == [0, 0], processes.said()
    return folder


@pytest.mark.parametrize(
    ("rank", "most", "where", "pass_number", "parts"),
    [
        (0, 64, "forward", 1, 2),
        (1, 64, "forward", 2, 2),
        (1, 20, "forward", 3, 8),
        (0, 64, "backward", 1, 2),
        (1, 64, "backward", 2, 2),
        (1, 32, "backward", 4, 4),
    ],
)
def test_a_step_that_does_not_fit_on_one_rank_is_retried_by_all(
    rank, most, where, pass_number, parts, begin, undisturbed, rows, saved, tmp_path
):
    processes = begin(tmp_path / "run", *AUTO, at={(rank, 4): starve(most, where, pass_number)})
    assert processes.wait() == [0, 0], processes.said()
    events = [row for row in rows(tmp_path / "run") if row["kind"] == "event"]
    step = 5 + (pass_number - 1) // 2
    assert [(row["step"], row["forward_parts"]) for row in events] == [(step, parts)]
    ours, theirs = ([row for row in rows(f) if row["kind"] == "train"] for f in (tmp_path / "run", undisturbed))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-5)
    ours, theirs = saved(tmp_path / "run"), saved(undisturbed)
    for key, value in theirs.items():
        if isinstance(value, torch.Tensor) and key.startswith(("/model", "/ema")):
            torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TrainingBatches, "taken"),
        (Step, "augmented"),
        (Replicas, "add_up"),
        (Precision, "unscale"),
        (convrun.training.step, "gradient_norms"),
    ],
    ids=lambda place: place if isinstance(place, str) else "",
)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_step_is_retried_by_all_wherever_in_it_memory_is_out(rank, kind, name, begin, undisturbed, rows, tmp_path):
    processes = begin(tmp_path / "run", *AUTO, at={(rank, 4): starve_once_in(kind, name)})
    assert processes.wait(60) == [0, 0], processes.said()
    assert [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "event"] == [5]
    ours, theirs = ([row for row in rows(f) if row["kind"] == "train"] for f in (tmp_path / "run", undisturbed))
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-5)


def test_a_run_that_was_cut_up_resumes_bit_for_bit(begin, rows, saved, tmp_path):
    keys, cut = (*AUTO, "model.drop_path_rate=0.2"), {(1, 4): starve(64, "backward")}
    whole = begin(tmp_path / "whole", *keys, at=cut)
    assert whole.wait() == [0, 0], whole.said()
    stopped = begin(tmp_path / "run", *keys, at=cut | {(0, 6): lambda: os.kill(os.getpid(), signal.SIGTERM)})
    assert stopped.wait() == [75, 75], stopped.said()
    goes_on = begin(tmp_path / "run", *keys)
    assert goes_on.wait() == [0, 0], goes_on.said()
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    ours, theirs = saved(tmp_path / "run"), saved(tmp_path / "whole")
    assert ours["/state/forward_parts"] == 2
    for key, value in theirs.items():
        assert torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value, key


@pytest.mark.parametrize(("rank", "after"), [(0, 6), (1, 6), (1, None)])
def test_a_fixed_micro_batch_is_told_once_what_fits_in_all_and_the_command_goes_on(
    rank, after, begin, saved, ranks, tmp_path
):
    processes = begin(tmp_path / "run", *FIXED, at={(rank, after): starve(5)})
    assert processes.wait() == [1, 1]
    said = processes.said()
    what = f"out of memory in step {(after or 0) + 1}: micro-batches of 8 images do not fit; training.micro_batch=4 "
    assert said.count("error: ") == said.count(f"error: {what}does (tried)") == 1, said
    assert saved(tmp_path / "run")["/state/step"] == (after or 0)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"
    command = shlex.split(said.split("all is saved, go on with: convrun run ")[1].splitlines()[0])
    goes_on = ranks(2, [*command, "--no-plugins", "--device", "cpu"])
    assert goes_on.wait() == [0, 0], goes_on.said()
    assert saved(tmp_path / "run")["/state/step"] == 8


def test_one_image_that_does_not_fit_ends_all_with_all_saved(begin, saved, tmp_path):
    processes = begin(tmp_path / "run", *AUTO, at={(1, 6): starve(0)})
    assert processes.wait() == [1, 1]
    said = processes.said()
    assert said.count("error: out of memory in step 7, with one image at a time; take a smaller model") == 1, said
    assert saved(tmp_path / "run")["/state/step"] == 6


def test_an_evaluation_that_does_not_fit_in_one_process_is_cut_up_in_all(begin, undisturbed, rows, saved, tmp_path):
    processes = begin(tmp_path / "run", *AUTO, at={(1, 3): starve(40, "evaluation")})
    assert processes.wait() == [0, 0], processes.said()
    assert saved(tmp_path / "run")["/state/evaluation_parts"] == 4
    ours, theirs = ([row for row in rows(f) if row["kind"] == "eval"] for f in (tmp_path / "run", undisturbed))
    assert len(ours) == len(theirs) > 0
    for row, other in zip(ours, theirs, strict=True):
        assert row.pop("weights") == other["weights"]
        assert row == {key: pytest.approx(other[key], rel=1e-5) if key != "kind" else "eval" for key in row}


def test_a_fixed_evaluation_batch_is_told_once_and_the_state_is_saved(begin, saved, ranks, tmp_path):
    processes = begin(tmp_path / "run", *FIXED, at={(1, 3): starve(3, "evaluation")})
    assert processes.wait() == [1, 1]
    said = processes.said()
    what = "error: out of memory in the evaluation: batches of 4 images do not fit; evaluation.batch_size=auto"
    assert said.count("error: ") == said.count(what) == 1, said
    assert saved(tmp_path / "run")["/state/step"] == 5
    command = shlex.split(said.split("all is saved, go on with: convrun run ")[1].splitlines()[0])
    goes_on = ranks(2, [*command, "--no-plugins", "--device", "cpu"])
    assert goes_on.wait() == [0, 0], goes_on.said()


@pytest.mark.parametrize("how", ["fsdp", "a buffer"])
@pytest.mark.parametrize("rank", [0, 1])
def test_where_nobody_can_retry_no_more_is_promised_than_the_last_checkpoint(how, rank, begin, ranks, tmp_path):
    strategy = f"distributed.strategy={'ddp' if how == 'a buffer' else how}"
    keys = ("training.batch_size=16", "training.micro_batch=auto", strategy)
    at = {(r, None): keep_a_buffer for r in range(2)} if how == "a buffer" else {}
    processes = begin(tmp_path / "run", *keys, at=at | {(rank, 6): starve(0)})
    assert processes.wait() == [1, 1]
    said = processes.said()
    message = (
        "out of memory in step 7: micro-batches of 8 images do not fit; go on from the last checkpoint with "
        "training.micro_batch=4 --allow-change training.micro_batch, or "
    )
    assert said.count(f"error: rank {rank} on ") == said.count(message) == 1, said
    assert "all is saved" not in said
    processes = begin(
        tmp_path / "run", *keys, "training.micro_batch=4", "--allow-change", "training.micro_batch", at=at
    )
    assert processes.wait() == [0, 0], processes.said()


def test_memory_that_is_out_before_the_first_pass_of_a_step_leaves_nobody_waiting(begin, tmp_path):
    at = {(rank, None): keep_a_buffer for rank in range(2)} | {(1, 6): starve_in(Buffers, "keep")}
    processes = begin(tmp_path / "run", *AUTO, at=at)
    assert processes.wait(60) == [1, 1]
    assert processes.said().count("error: rank 1 on ") == 1
    assert "out of memory in step 7: micro-batches of 128 images do not fit" in processes.said()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_trial_before_the_first_step_is_nothing_that_others_wait_in(rank, begin, saved, tmp_path):
    """DDP sends buffers at the beginning of a pass: not of one that another process may never begin."""
    starve_first = {(rank, None): lambda: (keep_a_buffer(), starve_before_the_model(1))}
    processes = begin(tmp_path / "run", *AUTO, at={(r, None): keep_a_buffer for r in range(2)} | starve_first)
    assert processes.wait() == [0, 0], processes.said()
    assert saved(tmp_path / "run")["/state/forward_parts"] == 2


@pytest.mark.parametrize("what", ["zeros", "the wrapper"])
def test_memory_for_neither_images_nor_a_retry_is_one_error(what, begin, tmp_path):
    scarce = starve_in(GradientSums, "make_up") if what == "zeros" else starve_in(Replicas, "renew")
    processes = begin(tmp_path / "run", *AUTO, at={(1, 4): lambda: (starve(64)(), scarce())})
    assert processes.wait() == [1, 1]
    said = processes.said()
    message = "out of memory in step 5: micro-batches of 128 images do not fit; go on from the last checkpoint with "
    assert said.count("error: rank 1 on ") == said.count(message) == 1, said
    assert "Traceback" not in said


def test_a_retry_takes_no_more_memory_than_the_first_attempt(begin, rows, tmp_path):
    at = {(rank, None): hold_one_set_of_buckets for rank in range(2)}
    processes = begin(tmp_path / "run", *AUTO, at=at | {(1, 4): starve(64, "backward")})
    assert processes.wait() == [0, 0], processes.said()
    assert [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "event"] == [5]


def test_the_cure_is_less_than_what_did_not_fit(begin, tmp_path):
    """In two parts of 64 images each it did not fit: micro-batches of 64 would be the same again."""
    at = {(0, 2): starve(64), (1, 4): lambda: (starve(32)(), starve_in(GradientSums, "make_up")())}
    processes = begin(tmp_path / "run", *AUTO, at=at)
    assert processes.wait() == [1, 1]
    assert "with training.micro_batch=32 --allow-change" in processes.said()


def test_weights_without_a_gradient_are_named_before_the_first_step(begin, tmp_path):
    at = {(rank, None): keep_an_idle_layer for rank in range(2)}
    processes = begin(tmp_path / "run", *AUTO, "optimizer.layer_decay=1", at=at)
    assert processes.wait() == [1, 1]
    said = processes.said()
    message = "2 weights of ConvNeXt got no gradient (idle.weight, idle.bias)"
    assert said.count("error: ") == said.count(message) == 1, said
    assert "Traceback" not in said


def test_the_parent_of_convruns_own_processes_hears_that_they_end_together(begin, tmp_path):
    """Else it would take the exit code for an end without a word, and say so after rank 0's message."""
    own = functools.partial(end_as_a_child_of, tmp_path)
    processes = begin(tmp_path / "run", *FIXED, at={(0, None): own, (1, None): own, (1, 6): starve(5)})
    assert processes.wait() == [1, 1]
    assert processes.said().count("error: out of memory in step 7") == 1
    assert FolderBoard(tmp_path).is_end_agreed
    assert FolderBoard(tmp_path).read() is None


def test_before_the_buckets_have_settled_nothing_can_be_made_up():
    assert not GradientSums().make_up()
