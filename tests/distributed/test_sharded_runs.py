"""ddp and fsdp beside what else a recipe can ask for: steps that are skipped, weights to start from."""

import json
import shutil

import pytest
import torch

# 10 steps; every checkpoint stays, so that a run can go on from any.
SHORTER = ("training.epochs=5", "checkpoints.keep.last=10", "evaluation.every_steps=4")
SKIP = ("training.nonfinite=skip",)
SPOILT_STEPS = (3, 6)
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def shorter(same_run):
    return lambda folder, *more: same_run(folder, *SHORTER, *more)


def spoil():
    """In this process the images of some steps are NaN on their way into the model."""
    from convrun.training.step import Step

    augmented = Step.augmented

    def spoilt(step, micro_batch, position):
        images, targets = augmented(step, micro_batch, position)
        return (images * float("nan") if micro_batch.step + 1 in SPOILT_STEPS else images), targets

    Step.augmented = spoilt


def tensors(saved):
    return {key: value for key, value in saved.items() if isinstance(value, torch.Tensor)}


def assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(
            ours[key], value, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda text, key=key: key + text
        )


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value, key


def back_to(folder, step):
    """Takes a run back to where it had come to this step."""
    for path in (folder / "checkpoints").glob("step-*.pt"):
        if int(path.stem.partition("-")[2]) > step:
            path.unlink()


@pytest.fixture(scope="module")
def reference(ranks, shorter, tmp_path_factory):
    """The run of one process that skips the same steps."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    processes = ranks(1, shorter(folder, *SKIP), at={(0, None): spoil})
    assert processes.wait() == [0], processes.said()
    return folder


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def skipping(request, ranks, shorter, tmp_path_factory):
    """A run of two processes, of which rank 1 alone gets non-finite images; and its strategy."""
    folder, strategy = tmp_path_factory.mktemp(request.param) / "run", f"distributed.strategy={request.param}"
    processes = ranks(2, shorter(folder, *SKIP, strategy), at={(1, None): spoil})
    assert processes.wait() == [0, 0], processes.said()
    return folder, strategy, processes.said()


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_by_all(skipping, reference, rows, saved):
    folder, _, said = skipping
    ours, theirs = saved(folder), saved(reference)
    assert ours["/state/nonfinite_steps"] == theirs["/state/nonfinite_steps"] == len(SPOILT_STEPS)
    assert_close(tensors(ours), tensors(theirs))
    skipped = [
        [(row["step"], row.get("nonfinite_steps")) for row in rows(f) if row["kind"] == "train"]
        for f in (folder, reference)
    ]
    assert skipped[0] == skipped[1]
    for step in SPOILT_STEPS:
        assert said.count(f"step {step} is skipped: the loss is nan") == 1
        assert (folder / "debug" / f"step-{step}.json").exists()


def test_a_run_that_skips_goes_on_bit_for_bit(skipping, ranks, shorter, rows, saved, tmp_path):
    folder, strategy, _ = skipping
    shutil.copytree(folder, tmp_path / "run", symlinks=True)
    back_to(tmp_path / "run", 4)
    processes = ranks(2, shorter(tmp_path / "run", *SKIP, strategy), at={(1, None): spoil})
    assert processes.wait() == [0, 0], processes.said()
    assert_equal(saved(tmp_path / "run"), saved(folder))
    assert rows(tmp_path / "run") == rows(folder)


def test_more_steps_than_the_limit_end_all_with_one_message(ranks, shorter, tmp_path):
    arguments = shorter(tmp_path / "run", *SKIP, "training.nonfinite_limit=1", "distributed.strategy=fsdp")
    processes = ranks(2, arguments, at={(1, None): spoil})
    assert processes.wait() == [3, 3], processes.said()
    assert processes.said().count("diverged in step 6: the loss is nan") == 1
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "diverged"


def test_fsdp_starts_from_weights_with_layer_decay_ema_and_clipping_as_one_process_does(
    reference, ranks, shorter, rows, saved, tmp_path
):
    init = f"init={{from: {reference / 'weights' / 'best_ema.safetensors'}, head: reinit, head_init_scale: 0.1}}"
    for name, count, strategy in (("one", 1, "ddp"), ("two", 2, "fsdp")):
        processes = ranks(count, shorter(tmp_path / name, init, f"distributed.strategy={strategy}"))
        assert processes.wait() == [0] * count, processes.said()
    assert "init: " in (tmp_path / "two" / "train.log").read_text()
    assert_close(tensors(saved(tmp_path / "two")), tensors(saved(tmp_path / "one")))
    norms = [[row["grad_norm"] for row in rows(tmp_path / name) if row["kind"] == "train"] for name in ("one", "two")]
    assert norms[1] == pytest.approx(norms[0], rel=TOLERANCE)
    # The weights it began with may be gone when it goes on: they are in the checkpoint.
    reference_state, reference_rows = saved(tmp_path / "two"), rows(tmp_path / "two")
    back_to(tmp_path / "two", 4)
    processes = ranks(2, shorter(tmp_path / "two", init, "distributed.strategy=fsdp"))
    assert processes.wait() == [0, 0], processes.said()
    assert_equal(saved(tmp_path / "two"), reference_state)
    assert rows(tmp_path / "two") == reference_rows


def test_a_run_that_diverges_ends_in_all_processes_with_exit_code_3(ranks, shorter, tmp_path):
    processes = ranks(
        2, shorter(tmp_path / "run", "distributed.strategy=fsdp", "optimizer.lr=1e30", "training.clip_grad_norm=null")
    )
    assert processes.wait() == [3, 3], processes.said()
    assert processes.said().count("diverged") == 1
