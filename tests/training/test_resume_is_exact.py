"""A run that was stopped or killed, however often, ends with the same bytes as one that never was."""

import functools
import random
import signal
import time

import pytest
import torch

from convrun.data.pipeline import EvaluationFetch
from convrun.errors import Preempted

STEPS = 16


class Killed(BaseException):
    """As good as a SIGKILL: nothing is saved on the way out."""


def kill():
    raise Killed


terminate = functools.partial(signal.raise_signal, signal.SIGTERM)


def assert_equal_runs(folder, reference, rows, saved):
    assert rows(folder) == rows(reference)
    ours, theirs = saved(folder), saved(reference)
    assert list(ours) == list(theirs)
    # data.workers may differ between starts, so the recipe and its hash may as well.
    for key in (key for key in theirs if not key.startswith("/recipe")):
        same = torch.equal if isinstance(theirs[key], torch.Tensor) else lambda a, b: a == b
        assert same(ours[key], theirs[key]), key
    for path in reference.glob("weights/*.safetensors"):
        assert (folder / "weights" / path.name).read_bytes() == path.read_bytes()


def test_the_reference_has_everything_on(reference, rows, saved):
    assert {(row["kind"], row.get("weights")) for row in rows(reference)} == {
        ("train", None),
        ("eval", "model"),
        ("eval", "ema"),
    }
    # 16 steps: logged every 3, evaluated every 5, and both at the end.
    assert [row["step"] for row in rows(reference) if row["kind"] == "train"] == [3, 6, 9, 12, 15, 16]
    assert [row["step"] for row in rows(reference) if row.get("weights") == "ema"] == [5, 10, 15, 16]
    keys = set(saved(reference))
    assert {"/state/callbacks/0/best", "/model/stem.0.weight", "/ema/stem.0.weight", "/optimizer/state/0/step"} <= keys
    assert len(list(reference.glob("weights/*.safetensors"))) == 4


@pytest.mark.parametrize("step", [1, 3, 4, 5, 8, 14])
def test_resume_is_bitwise_equal_after_a_signal_at_any_step(step, reference, train, rows, saved, tmp_path):
    with pytest.raises(Preempted, match=rf"stopped after step {step} of 16 .*all saved; go on with: convrun run "):
        train(at={step: terminate})
    assert saved(tmp_path / "run")["/state/step"] == step
    train()
    assert_equal_runs(tmp_path / "run", reference, rows, saved)


def test_resume_is_bitwise_equal_after_a_stop_at_every_step_in_turn(reference, train, rows, saved, tmp_path):
    for step in range(1, STEPS):
        with pytest.raises(Preempted):
            train(f"data.workers={step % 3 if step % 8 == 0 else 0}", at={step: terminate})
    train()
    assert_equal_runs(tmp_path / "run", reference, rows, saved)


@pytest.mark.parametrize("step", [1, 4, 5, 11, 16])
def test_resume_is_bitwise_equal_after_a_kill_between_checkpoints(step, reference, train, rows, saved, tmp_path):
    with pytest.raises(Killed):
        train(at={step: kill})
    train()
    assert_equal_runs(tmp_path / "run", reference, rows, saved)


@pytest.mark.parametrize("batch", [1, 4, 6, 8, 19, 24])
def test_a_stop_during_any_batch_of_an_evaluation_is_made_up_for(
    batch, reference, train, rows, saved, tmp_path, monkeypatch
):
    # 4 evaluations × (model, EMA) × 3 batches of the 10 images.
    calls, fetch = [], EvaluationFetch.__call__
    monkeypatch.setattr(
        EvaluationFetch,
        "__call__",
        lambda self, i: (calls.append(1), len(calls) == batch and terminate()) and fetch(self, i),
    )
    with pytest.raises(Preempted, match="its evaluation to go" if batch > 18 else "to go"):
        train()
    train()
    assert_equal_runs(tmp_path / "run", reference, rows, saved)


def test_an_evaluation_that_was_made_up_for_is_on_record_once_after_a_kill(
    reference, train, rows, saved, tmp_path, monkeypatch
):
    calls, fetch = [], EvaluationFetch.__call__
    with monkeypatch.context() as patch:
        patch.setattr(EvaluationFetch, "__call__", lambda self, i: (calls.append(1), len(calls) == 8 and terminate())
                      and fetch(self, i))  # fmt: skip
        with pytest.raises(Preempted, match=r"after step 10 "):
            train()
    with pytest.raises(Killed):
        train(at={11: kill})
    assert [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "eval"] == [5, 5, 10, 10]
    train()
    assert_equal_runs(tmp_path / "run", reference, rows, saved)


def test_a_signal_in_the_last_moment_of_a_step_is_saved_too(train, saved, tmp_path, monkeypatch):
    from convrun.training.loop import Loop

    finish = Loop.finish_step
    monkeypatch.setattr(Loop, "finish_step", lambda self: (finish(self), self.progress.step == 7 and terminate()))
    with pytest.raises(Preempted, match=r"after step 7 .*all saved"):
        train()
    assert saved(tmp_path / "run")["/state/step"] == 7


@pytest.mark.parametrize("step", [2, 9])
def test_fp16_resumes_with_its_loss_scaler(step, train, train_in, rows, saved, tmp_path, monkeypatch):
    # A scale that grows every 2 steps overflows within the run: steps are skipped, and the state has a history.
    scaler = functools.partial(torch.amp.GradScaler, growth_interval=2, init_scale=2.0**20)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    train_in(tmp_path / "reference", "training.precision=fp16")
    assert saved(tmp_path / "reference")["/state/overflow_steps"] > 1
    with pytest.raises(Preempted):
        train("training.precision=fp16", at={step: terminate})
    train("training.precision=fp16")
    assert_equal_runs(tmp_path / "run", tmp_path / "reference", rows, saved)


def test_early_stopping_counts_on_after_a_resume(train, train_in, rows, saved, tmp_path):
    # No evaluation can be 100 better than the first: it ends after the third, at step 15.
    keys = ["callbacks=[{name: early_stopping, metric: top1, min_delta: 100, patience: 2}]"]
    outcome = train_in(tmp_path / "reference", *keys)
    assert (outcome.step, outcome.was_finished) == (15, False)
    assert "top1 of the model weights has not improved in 2 evaluations" in outcome.stopped_because
    for step in (4, 5, 11, 13):
        with pytest.raises(Preempted):
            train(*keys, at={step: terminate})
    assert train(*keys).stopped_because == outcome.stopped_because
    assert_equal_runs(tmp_path / "run", tmp_path / "reference", rows, saved)
    again = train(*keys)
    assert (again.step, again.was_finished) == (15, True)


@pytest.mark.parametrize("workers", [0, 2])
def test_killing_at_random_moments_changes_nothing(
    workers, reference, tiny_file, rows, saved, forked, tmp_path, wait_until
):
    draws = random.Random(workers)
    folder, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    arguments = ["run", tiny_file, f"data.workers={workers}", "--output", folder, "--no-plugins"]
    arguments += ["--device", "cpu"]
    for lines in (1, 3, 5, 8):  # of 14
        with pytest.MonkeyPatch.context() as patch:  # inherited by the fork: it waits for a kill that comes late
            patch.setattr("convrun.training.recording.recorder.export_weights", lambda *_: time.sleep(3600))
            process = forked(*arguments)
        wait_until(lambda n=lines: metrics.is_file() and metrics.read_bytes().count(b"\n") >= n)
        time.sleep(draws.uniform(0, 0.03))
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    # At once: workers that outlive a killed run by seconds must not hold its lock.
    assert forked(*arguments).wait() == 0, forked.output.read_text()
    assert_equal_runs(folder, reference, rows, saved)
    assert not list(folder.rglob(".*.draft"))
