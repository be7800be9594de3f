"""A loss, a gradient or a weight that is not finite: where it is noticed, what is recorded, how the run goes on."""

import functools
import json
import re
import shlex
import signal
import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from convrun import checkpoints
from convrun.data.order import epoch_order
from convrun.errors import Diverged, Preempted
from convrun.training.step import Step

# Warm-up from 0: the first steps are harmless, the later ones (lr up to 1e20 without clipping) are not.
WILD = (
    "optimizer={name: sgd, lr: 1e20, momentum: 0}",
    "scheduler={name: constant, warmup_steps: 12}",
    "training.clip_grad_norm=null",
    "checkpoints={every_steps: 1, keep: {last: 1}}",
)
SKIP = ("training.nonfinite=skip", "logging.every_steps=2")


@pytest.fixture
def poison(monkeypatch):
    """Makes the images of some steps (numbers from 1) NaN on their way into the model."""
    augmented = Step.augmented

    def make(*steps):
        def spoilt(self, micro_batch, position):
            images, targets = augmented(self, micro_batch, position)
            return (images * float("nan") if micro_batch.step + 1 in steps else images), targets

        monkeypatch.setattr(Step, "augmented", spoilt)

    return make


@pytest.fixture
def diverged(train, tmp_path):
    with pytest.raises(Diverged, match=r"^diverged (in|by) step \d+: ") as caught:
        train(*WILD)
    assert caught.value.exit_code == 3
    return tmp_path / "run"


def dump_of(folder, step):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((folder / "debug" / f"step-{step}.json").read_text(), parse_constant=refuse)


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
        assert same(ours[key], value), key


def test_the_last_good_checkpoint_stays_and_is_finite(diverged):
    (step,) = checkpoints.steps_in(diverged / "checkpoints")
    saved = checkpoints.load(checkpoints.path_of(diverged / "checkpoints", step))
    assert step >= 1
    assert all(torch.isfinite(tensor).all() for tensor in saved["model"].values())
    assert all(torch.isfinite(tensor).all() for tensor in saved["ema"].values())


def test_status_and_log_say_where_the_last_good_state_is(diverged):
    status = json.loads((diverged / "status.json").read_text())
    (step,) = checkpoints.steps_in(diverged / "checkpoints")
    assert status["state"] == "diverged"
    assert f"the last good checkpoint is {diverged}/checkpoints/step-{step}.pt" in status["error"]
    assert f"what is known of the step is in {diverged}/debug/step-" in status["error"]
    assert status["error"] in (diverged / "train.log").read_text()
    assert not (diverged / "weights").exists()


def test_metrics_stay_valid_json(diverged):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    for line in (diverged / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_started_again_it_diverges_again_at_the_same_step(diverged, train):
    before = json.loads((diverged / "status.json").read_text())
    dumps = {path.name: path.read_bytes() for path in (diverged / "debug").iterdir()}
    with pytest.raises(Diverged):
        train(*WILD)
    after = json.loads((diverged / "status.json").read_text())
    assert (after["state"], after["step"], after["error"]) == (before["state"], before["step"], before["error"])
    assert {path.name: path.read_bytes() for path in (diverged / "debug").iterdir()} == dumps


@pytest.mark.parametrize("step", [1, 6, 7, 16])
def test_the_step_is_named_whenever_it_is_noticed(step, make_loop, poison):
    poison(step)
    loop = make_loop("logging.every_steps=1000", "evaluation=null", "callbacks=[]", "ema=null",
                           "checkpoints.every_steps=1000")  # fmt: skip
    with pytest.raises(Diverged, match=rf"^diverged in step {step}: the loss is nan$"):
        loop.run()
    assert len(loop.recorder.steps) == 16  # it was noticed at the end
    (found,) = loop.recorder.non_finite
    assert [figures.step for figures in found.before] == list(range(1, step))
    assert loop.recorder.saved == []


def test_figures_of_more_steps_than_the_device_keeps_are_read_between_rows(make_loop, poison, monkeypatch):
    monkeypatch.setattr("convrun.training.figures.MOST_UNREAD", 3)
    poison(5)
    loop = make_loop("logging.every_steps=1000", "evaluation=null", "callbacks=[]", "ema=null",
                           "checkpoints.every_steps=1000")  # fmt: skip
    with pytest.raises(Diverged, match=r"step 5: "):
        loop.run()
    assert len(loop.recorder.steps) == 6


@pytest.mark.parametrize(("policy", "waits_a_step"), [("stop", 0), ("skip", 1)])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_waits_for_the_device_only_if_it_may_be_skipped_and_then_once(
    precision, policy, waits_a_step, make_loop, monkeypatch
):
    """On a GPU a wait is a read of a number (aten::_local_scalar_dense) or a copy to the host (here `tolist`)."""
    waits, tolist = [], torch.Tensor.tolist

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keys=None):
            if function is torch.ops.aten._local_scalar_dense.default:
                waits.append("".join(traceback.format_stack(limit=4)))
            return function(*arguments, **(keys or {}))

    def read(tensor):
        waits.append("".join(traceback.format_stack(limit=4)))
        return tolist(tensor)

    # SGD, since Adam reads its step counters, which lie on the host. Clipping and EMA are on.
    loop = make_loop("optimizer={name: sgd, lr: 1e-2}", "training.steps=6", "training.epochs=null",
                           f"training.precision={precision}", f"training.nonfinite={policy}")  # fmt: skip
    monkeypatch.setattr(torch.Tensor, "tolist", read)
    with loop.batches:
        for number in range(6):
            micro_batches = list(loop.batches.of_step(number))
            waits.clear()
            with Reads():
                gradient = loop.memory.retried(loop.step.gradient, micro_batches)
                loop.state.figures.add(gradient, 0.01)
                assert loop.health.accepts(gradient)
                loop.memory.applied(loop.step.update, gradient, 0.01)
            assert len(waits) == waits_a_step, waits
            loop.progress.step += 1
    assert loop.progress.step == 6


def test_the_record_has_the_samples_of_the_step_and_its_gradients_by_group(train, poison, tmp_path):
    poison(11)  # the third step of the second epoch
    with pytest.raises(Diverged, match=r"diverged in step 11: the loss is nan; what is known of the step is in "):
        train()
    record = dump_of(tmp_path / "run", 11)
    order = epoch_order(3, 1, 67)[16:24].tolist()
    assert [sample["index"] for part in record["micro_batches"] for sample in part["samples"]] == order
    assert [(part["number"], part["process"]) for part in record["micro_batches"]] == [(0, 0), (1, 0)]
    assert record["micro_batches"][0]["samples"][0]["place"] == f"synthetic train image {order[0]}"
    assert (record["step"], record["epoch"], record["loss"], record["is_skipped"]) == (11, 1, "nan", False)
    assert len(record["parameter_groups"]) == 12  # six levels, with weight decay and without
    assert {group["grad_norm"] for group in record["parameter_groups"]} == {"nan"}
    head = record["parameter_groups"][-1]
    assert (head["label"], head["lr_scale"], head["lr"]) == ("level 5, no decay", 1.0, record["lr"])
    before = record["steps_before"]
    assert [row["step"] for row in before] == list(range(1, 11))
    norms = before[-1]["group_norms"]
    assert before[-1]["grad_norm"] == pytest.approx(sum(norm**2 for norm in norms) ** 0.5, rel=1e-5)


def test_a_record_that_cannot_be_written_does_not_hide_the_step(train, poison, tmp_path):
    poison(2)
    (tmp_path / "run").mkdir()
    with pytest.raises(Diverged, match=r"step 2: the loss is nan; what is known of the step could not be recorded: "):
        train(at={1: lambda: (tmp_path / "run" / "debug").write_text("in the way")})


def test_before_the_first_checkpoint_the_message_says_so(train, poison):
    poison(1)
    with pytest.raises(Diverged, match=r"nothing was saved before; start again") as caught:
        train()
    assert "--allow-change" not in str(caught.value)


@pytest.mark.parametrize("key", ["optimizer.lr", "training.clip_grad_norm", "training.nonfinite"])
@pytest.mark.parametrize("steps", [1, 100], ids=["from a checkpoint", "from the start"])
def test_the_command_in_the_message_goes_on(key, steps, convrun, tiny_file, poison, monkeypatch, tmp_path):
    with monkeypatch.context():
        poison(5)
        arguments = ["run", tiny_file, f"checkpoints.every_steps={steps}", "evaluation.every_steps=100"]
        code, _, errors = convrun(*arguments, "--output", tmp_path / "a run", "--no-plugins", "--device", "cpu")
        assert code == 3
        assert "Traceback" not in errors
        (command,) = [line for line in errors.splitlines() if f" {key}=" in line]
        command = shlex.split(command[command.index("convrun run") :])
        if key != "training.nonfinite":
            poison()  # another rate would not cure images that are NaN
        code, _, errors = convrun(*command[1:], "--no-plugins", "--device", "cpu")
    assert code == 0, errors
    assert json.loads((tmp_path / "a run" / "status.json").read_text())["state"] == "finished"
    lines = [json.loads(line) for line in (tmp_path / "a run" / "metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in lines) == 16


def test_a_run_that_diverged_goes_on_with_a_lower_learning_rate_from_the_checkpoint_named(convrun, tiny_file, tmp_path):
    run = tmp_path / "run"
    rest = ["--no-plugins", "--device", "cpu"]
    code, _, errors = convrun("run", tiny_file, *WILD, "checkpoints.keep.last=2", "--output", run, *rest)
    assert code == 3
    # The second step had a rate of 1e19: the state after it is finite, but past saving.
    lower = re.search(r"convrun (run .*) optimizer\.lr=5e\+19 (--allow-change optimizer\.lr)", errors)
    command = [*shlex.split(lower[1]), "optimizer.lr=1e-3", *lower[2].split(), *rest]
    code, _, errors = convrun(*command)
    assert code == 3
    aside = re.search(r"should it diverge again, (\S+) is spoilt already: delete it to go on from (\S+)$", errors, re.M)
    assert (aside[1], aside[2]) == ("step-2.pt", "step-1.pt")
    (run / "checkpoints" / aside[1]).unlink()
    code, _, errors = convrun("run", run, *rest)  # the change is the run's own by now
    assert code == 0, errors
    assert "goes on after step 1 of 16" in (run / "train.log").read_text()


# Skipping


def test_a_skipped_step_changes_nothing_but_the_step_number(make_loop, poison):
    poison(5)
    loop = make_loop(*SKIP)
    optimizer, seen = loop.state.optimizer, []
    loop.recorder.advance = lambda step: seen.append(
        {
            **{f"model {k}": v.clone() for k, v in loop.state.model.state_dict().items()},
            **{f"ema {k}": v.clone() for k, v in loop.state.ema.state_dict().items()},
            **{f"{i} {k}": v.clone() for i, p in enumerate(optimizer.state.values()) for k, v in p.items()},
        }
    )
    loop.run()
    assert_same(seen[4], seen[3])
    assert any(not torch.equal(seen[5][key], seen[4][key]) for key in seen[5])
    assert (loop.progress.step, loop.progress.nonfinite_steps) == (16, 1)
    (step,) = loop.recorder.non_finite
    assert (step.step, step.is_skipped) == (5, True)


def test_skipped_steps_are_in_no_rows_mean_and_are_counted(make_loop, poison):
    each = make_loop("training.nonfinite=skip", "logging.every_steps=1", "evaluation=null", "callbacks=[]",
                        "ema=null")  # fmt: skip
    poison(5, 7, 8)
    each.run()
    losses = each.recorder.losses()
    pairs_of = make_loop(*SKIP, "evaluation=null", "callbacks=[]", "ema=null")
    pairs_of.run()
    rows = {row["step"]: row for row in pairs_of.recorder.rows}
    assert rows[6]["loss"] == losses[5]
    assert rows[6]["nonfinite_steps"] == 1
    assert rows[8]["loss"] != rows[8]["loss"]  # nan: the mean of no step
    assert rows[8]["nonfinite_steps"] == 2
    assert rows[10]["loss"] == pytest.approx((losses[8] + losses[9]) / 2, rel=1e-12)
    assert "nonfinite_steps" not in rows[10]


def test_a_run_with_skipped_steps_resumes_bit_for_bit(train_in, poison, rows, saved, tmp_path):
    poison(2, 7, 10)
    train_in(tmp_path / "reference", *SKIP)
    reference = saved(tmp_path / "reference")
    assert reference["/state/nonfinite_steps"] == 3
    for step in (2, 7, 9):
        with pytest.raises(Preempted):
            train_in(tmp_path / "run", *SKIP, at={step: lambda: signal.raise_signal(signal.SIGTERM)})
    train_in(tmp_path / "run", *SKIP)
    assert rows(tmp_path / "run") == rows(tmp_path / "reference")
    assert_same(saved(tmp_path / "run"), reference)
    assert {path.name: path.read_text() for path in (tmp_path / "run" / "debug").iterdir()} == {
        path.name: path.read_text() for path in (tmp_path / "reference" / "debug").iterdir()
    }
    assert "step 7 is skipped: the loss is nan; " in (tmp_path / "run" / "train.log").read_text()


def test_more_skipped_steps_than_the_limit_end_the_run(train, poison, tmp_path):
    poison(2, 3, 9)
    with pytest.raises(Diverged, match=r"step 9: the loss is nan, and training.nonfinite_limit=2 steps were skipped"):
        train("training.nonfinite=skip", "training.nonfinite_limit=2")
    records = {path.name: json.loads(path.read_text())["is_skipped"] for path in (tmp_path / "run/debug").iterdir()}
    assert records == {"step-2.json": True, "step-3.json": True, "step-9.json": False}


def test_a_limit_without_skip_is_refused(tiny):
    from convrun.recipe.problems import RecipeError

    with pytest.raises(RecipeError, match=r"training.nonfinite_limit: has no effect"):
        tiny("training.nonfinite_limit=3")


def test_the_policy_may_change_when_a_run_goes_on(train, poison):
    poison(6)
    with pytest.raises(Diverged):
        train()
    assert train("training.nonfinite=skip", "training.nonfinite_limit=1").step == 16


def test_buffers_of_a_skipped_step_are_brought_back(make_loop, poison):
    from convrun.training.step import Buffers

    poison(5)
    loop = make_loop(*SKIP)
    loop.state.model.register_buffer("running_mean", torch.zeros(()))

    def average(model, inputs):
        model.running_mean.lerp_(inputs[0].mean(), 0.1)

    loop.state.model.register_forward_pre_hook(average)
    loop.step.buffers = Buffers(loop.state.model)
    loop.run()
    assert torch.isfinite(loop.state.model.running_mean)


# fp16


def overflowing(logits, targets):
    """Finite, but no float32 any more at any loss scale above 1e-4: the gradient is inf × 0 besides."""
    return torch.nn.functional.cross_entropy(logits, targets) + (logits * 0).sqrt().sum() * 0


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_loss_scale_that_has_collapsed_counts_as_non_finite(policy, make_loop):
    loop = make_loop("training.precision=fp16", "training.steps=50", "training.epochs=null", "evaluation=null",
                           "callbacks=[]", "ema=null", f"training.nonfinite={policy}", loss=overflowing)  # fmt: skip
    weights = {name: tensor.clone() for name, tensor in loop.state.model.state_dict().items()}
    # 2^16 halved n times is below 1e-4 first for n = 30: the 31st step has that scale; ten more may be skipped.
    with pytest.raises(
        Diverged, match=rf"step {31 if policy == 'stop' else 41}: the gradient overflows even at a loss"
    ):
        loop.run()
    assert_same(loop.state.model.state_dict(), weights)


@pytest.fixture
def small_scale(monkeypatch):
    """A first loss scale at which nothing overflows."""
    monkeypatch.setattr(torch.amp, "GradScaler", functools.partial(torch.amp.GradScaler, init_scale=2.0**8))


def test_a_non_finite_loss_is_noticed_in_fp16_too(make_loop, poison, small_scale):
    poison(3)
    loop = make_loop("training.precision=fp16")
    with pytest.raises(Diverged, match=r"step 3: the loss is nan"):
        loop.run()
    (step,) = loop.recorder.non_finite
    assert step.figures.loss_scale == 2.0**8
    assert step.scaler["scale"] < 2.0**8  # when it was noticed, at the next row


def test_fp16_skips_a_non_finite_step_once(make_loop, poison, small_scale):
    poison(3)
    loop = make_loop("training.precision=fp16", "training.nonfinite=skip")
    loop.run()
    assert loop.progress.nonfinite_steps == 1
    assert loop.state.precision.scaler.get_scale() == 2.0**7
    assert all(torch.isfinite(tensor).all() for tensor in loop.state.model.state_dict().values())
