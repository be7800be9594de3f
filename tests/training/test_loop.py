import functools
import itertools
from types import SimpleNamespace

import pytest
import torch

from convrun.errors import Diverged

PLAIN = ("augmentations=[]", "model.drop_path_rate=0", "ema=null", "evaluation=null", "callbacks=[]")
# A constant rate without momentum or decay: what a step does to the weights can be said in one line.
SGD = ("optimizer={name: sgd, lr: 0.1, momentum: 0, weight_decay: 0}", "scheduler=constant")


def weights_of(loop):
    return {name: tensor.clone() for name, tensor in loop.state.model.state_dict().items()}


def distance(a, b):
    return torch.stack([(a[name] - b[name]).double().norm() for name in a]).norm().item()


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_every_step_has_the_plans_learning_rate_times_the_groups_share(make_loop, cosine_lr):
    loop = make_loop()
    loop.run()
    shares = [group["lr_scale"] for group in loop.state.optimizer.param_groups]
    # 1-1-1-1 blocks have 6 levels: stem 0, stages 1 to 4, head 5.
    assert shares[0] == pytest.approx(0.8**5)
    assert shares[-1] == 1
    assert len(loop.recorder.steps) == 16
    for seen in loop.recorder.steps:
        expected = cosine_lr(seen["step"] - 1)
        assert seen["lr"] == pytest.approx([expected * share for share in shares], rel=1e-12, abs=1e-18)
    logged = {row["step"]: row["lr"] for row in loop.recorder.rows if row["kind"] == "train"}
    assert logged == pytest.approx({step: cosine_lr(step - 1) for step in (3, 6, 9, 12, 15, 16)}, abs=1e-18)


def test_the_first_step_of_a_warm_up_changes_no_weight_bit(make_loop):
    loop = make_loop()
    before = {name: p.detach().clone() for name, p in loop.state.model.named_parameters()}
    loop.run()
    first, second = loop.recorder.steps[:2]
    assert set(first["lr"]) == {0.0}
    assert_same(first["weights"], before)
    assert distance(second["weights"], before) > 0


def test_accumulated_micro_batches_are_one_batch_up_to_the_order_of_summation(make_loop):
    keys = (
        *PLAIN,
        "augmentations=[{name: random_crop, padding: 1}]",
        "logging.every_steps=1",
        "training.batch_size=16",
    )
    sgd = ("optimizer={name: sgd, lr: 0.1}", "scheduler=constant")
    loops = [make_loop(*keys, *sgd, f"training.micro_batch={size}") for size in (16, 4)]
    for loop in loops:
        loop.run()
    whole, parts = loops
    assert (whole.plan.accumulation, parts.plan.accumulation) == (1, 4)
    assert parts.recorder.losses() == pytest.approx(whole.recorder.losses(), rel=1e-5)
    for name, tensor in whole.state.model.state_dict().items():
        torch.testing.assert_close(parts.state.model.state_dict()[name], tensor, rtol=1e-5, atol=1e-5)


def test_a_logged_loss_is_the_mean_over_the_steps_of_its_row(make_loop):
    each, thirds = make_loop("logging.every_steps=1"), make_loop("logging.every_steps=3")
    each.run()
    thirds.run()
    losses = each.recorder.losses()
    assert len(losses) == 16
    means = [sum(losses[i : i + 3]) / len(losses[i : i + 3]) for i in range(0, 16, 3)]
    assert thirds.recorder.losses() == pytest.approx(means, rel=1e-12)


def test_the_speed_counts_the_time_of_steps_and_not_that_of_logging_evaluating_and_saving(make_loop, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("convrun.training.figures.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    loop = make_loop("logging.every_steps=4", "evaluation.every_steps=8")
    for name, seconds in (("log", 1000.0), ("save", 100.0), ("advance", 1.0)):
        method = getattr(loop.recorder, name)

        def lasts(*arguments, does=method, seconds=seconds):
            clock[0] += seconds
            does(*arguments)

        monkeypatch.setattr(loop.recorder, name, lasts)
    loop.run()
    speeds = [row["images_per_second"] for row in loop.recorder.rows if row["kind"] == "train"]
    assert speeds == [8.0] * 4  # batches of 8 images, a second each


def test_a_loss_is_that_of_the_model_before_the_step(make_loop):
    loop = make_loop(*PLAIN, *SGD, "logging.every_steps=1", "training.batch_size=67", "training.micro_batch=67")
    with loop.batches:
        (batch,) = loop.batches.of_step(0)
    with torch.no_grad():
        logits = loop.state.model.eval()(loop.step.inputs(batch.images))
    expected = torch.nn.functional.cross_entropy(logits, batch.labels, label_smoothing=0.1).item()
    loop.run()
    assert loop.recorder.losses()[0] == pytest.approx(expected, rel=1e-5)


def test_a_clipped_gradient_has_the_norm_of_the_recipe(make_loop):
    keys = (*PLAIN, *SGD, "logging.every_steps=1")
    clipped, free = (make_loop(*keys, f"training.clip_grad_norm={norm}") for norm in ("1e-3", "null"))
    before = weights_of(free)
    clipped.run()
    free.run()
    length = distance(free.recorder.steps[0]["weights"], before) / 0.1
    assert length > 2e-3
    # The row has the norm before clipping, the step lr × 1e-3. Weights of about 0.1: 1e-8 of rounding each.
    assert clipped.recorder.rows[0]["grad_norm"] == pytest.approx(length, rel=1e-3)
    assert distance(clipped.recorder.steps[0]["weights"], before) == pytest.approx(0.1 * 1e-3, rel=0.01)
    assert "grad_norm" not in free.recorder.rows[0]


def test_the_ema_follows_the_weights_after_each_step(make_loop):
    loop = make_loop()
    average = {name: p.detach().clone() for name, p in loop.state.model.named_parameters()}
    loop.run()
    for seen in loop.recorder.steps:
        average = {name: torch.lerp(average[name], seen["weights"][name], 1 - 0.9) for name in average}
        assert_same(seen["ema"], average)


FP16 = ("training.precision=fp16", "training.steps=4", "training.epochs=null")


def overflowing(logits, targets):
    """Finite, but 2^16 times it is no float32 any more: the scaled gradients overflow."""
    return torch.nn.functional.cross_entropy(logits, targets) * 1e35


def test_a_skipped_fp16_step_touches_neither_weights_nor_ema(make_loop):
    loop = make_loop(*FP16, loss=overflowing)
    before, average = weights_of(loop), {n: t.clone() for n, t in loop.state.ema.state_dict().items()}
    loop.run()
    assert loop.progress.overflow_steps == 4
    assert loop.state.precision.scaler.get_scale() == 2**16 / 2**4
    assert_same(weights_of(loop), before)
    assert_same(loop.state.ema.state_dict(), average)


def test_a_row_counts_steps_that_fp16_skipped_apart_from_those_that_were_not_finite(make_loop):
    loop = make_loop(*FP16, "logging.every_steps=3", "training.nonfinite=skip", loss=overflowing)
    loop.run()
    rows = [row for row in loop.recorder.rows if row["kind"] == "train"]
    assert [(row["step"], row["overflow_steps"]) for row in rows] == [(3, 3), (4, 1)]
    assert not any("nonfinite_steps" in row for row in rows)
    assert (loop.progress.overflow_steps, loop.progress.nonfinite_steps) == (4, 0)


def test_fp16_steps_that_fit_are_taken(make_loop, monkeypatch):
    # Gradients of about 1 at most, times 2^8, are far from fp16's end at 65,504.
    monkeypatch.setattr(torch.amp, "GradScaler", functools.partial(torch.amp.GradScaler, init_scale=2.0**8))
    loop = make_loop("training.precision=fp16", *SGD)
    loop.run()
    assert loop.progress.overflow_steps == 0
    assert all(torch.isfinite(tensor).all() for tensor in loop.state.model.state_dict().values())
    steps = loop.recorder.steps
    assert all(distance(a["weights"], b["weights"]) > 0 for a, b in itertools.pairwise(steps))


def test_a_bf16_loss_is_close_to_that_of_float32(make_loop):
    losses = []
    for precision in ("float32", "bf16"):
        loop = make_loop(*PLAIN, *SGD, f"training.precision={precision}", "logging.every_steps=1")
        loop.run()
        losses.append(loop.recorder.losses())
    # The same weights in the first step; bf16 rounds each product to 2^-8 of its size, and those errors average out.
    assert losses[1][0] == pytest.approx(losses[0][0], rel=2**-7)
    assert losses[1][0] != losses[0][0]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_loader_workers_changes_nothing(workers, train_in, reference, rows, saved, tmp_path):
    train_in(tmp_path / "run", f"data.workers={workers}")
    assert rows(tmp_path / "run") == rows(reference)
    ours, theirs = saved(tmp_path / "run"), saved(reference)
    tensors = [key for key, value in theirs.items() if isinstance(value, torch.Tensor)]
    assert len(tensors) > 100
    assert all(torch.equal(ours[key], theirs[key]) for key in tensors)


def test_training_mode_is_on_in_every_step(make_loop):
    loop = make_loop()
    loop.run()
    assert all(seen["training"] for seen in loop.recorder.steps)
    assert loop.state.model.training


def test_saves_when_due_when_best_and_at_the_end(make_loop):
    loop = make_loop("evaluation.every_steps=5", "checkpoints.every_steps=6")
    loop.run()
    best, value = [], -1.0
    for row in loop.recorder.rows:
        if row.get("weights") == "ema" and row["top1"] > value:
            best.append(row["step"])
            value = row["top1"]
    assert loop.recorder.saved == sorted({6, 12, 16, *best})


def test_batch_augmentations_see_normalised_images_and_soft_targets_in_order(make_loop):
    loop = make_loop("data.mean=[0.5, 0.5, 0.5]", "data.std=[0.25, 0.25, 0.25]")
    seen = []

    def spy(augment):
        def call(images, targets, draws):
            seen.append((images.min().item(), images.max().item(), targets.ndim, tuple(images.shape)))
            return augment(images, targets, draws)

        return call

    loop.step.augmentations = [spy(augment) for augment in loop.step.augmentations]
    loop.run()
    # Erasing gets class numbers, mixing too (soft rows come out of it); uint8 becomes (x − 0.5) / 0.25, in ±2.
    assert len(seen) == 16 * 2 * 2
    assert {(ndim, shape) for _, _, ndim, shape in seen} == {(1, (4, 3, 8, 8))}
    first = seen[::2]
    assert min(low for low, *_ in first) >= -2
    assert max(high for _, high, *_ in first) <= 2
    assert min(low for low, *_ in first) < -1 < 1 < max(high for _, high, *_ in first)


def test_a_nan_gradient_under_a_finite_loss_is_never_saved(make_loop):
    # sqrt has an infinite slope at 0: the loss is 0, the gradient inf × 0.
    loop = make_loop(*PLAIN, *SGD, "checkpoints.every_steps=1", loss=lambda x, _: (x * 0).sqrt().sum())
    with pytest.raises(Diverged, match=r"diverged in step 1: the norm of the gradient is nan"):
        loop.run()
    assert loop.recorder.saved == []


def test_gradients_of_all_ranks_are_summed_with_the_last_part_of_a_step_alone(make_loop, monkeypatch):
    loop, asked = make_loop(), []
    summing = loop.step.strategy.summing
    monkeypatch.setattr(loop.step.strategy, "summing", lambda is_last: (asked.append(is_last), summing(is_last))[1])
    loop.progress.forward_parts = 2
    with loop.batches:
        loop.step.gradient(loop.batches.of_step(0))
    assert asked == [False, False, False, True]  # 2 micro-batches in 2 parts each
