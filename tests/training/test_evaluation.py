import math

import pytest
import torch
from torch import nn

from convrun.data.pipeline import EvalBatch
from convrun.distributed.group import Group
from convrun.distributed.strategy import Strategy
from convrun.training.evaluation import Evaluation, EvaluationStopped, Score
from convrun.training.precision import Precision

CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 4 * 4, 7))


def batches(images, size):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (images, 3, 4, 4), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 7, (images,), generator=generator)
    return [EvalBatch(pixels[i : i + size], labels[i : i + size]) for i in range(0, images, size)]


def inputs(images):
    return images.float() / 255


def run(model, parts, **keys):
    strategy = Strategy(model, Group())
    return Evaluation(parts, inputs, Precision("float32", CPU), strategy, input_size=4).score(model, **keys)


@pytest.mark.parametrize("size", [1, 4, 9, 64])
def test_counts_and_means_are_exact_whatever_the_batches(model, size):
    score = run(model, batches(23, size))
    (everything,) = batches(23, 23)
    with torch.no_grad():
        logits = model.eval()(inputs(everything.images))
    ranks = (logits > logits.gather(1, everything.labels[:, None])).sum(1)
    assert score.images == 23
    assert score.top1 == pytest.approx(100 * (ranks < 1).sum().item() / 23, rel=1e-12)
    assert score.top5 == pytest.approx(100 * (ranks < 5).sum().item() / 23, rel=1e-12)
    assert 0 < score.top1 < score.top5 < 100
    losses = -logits.double().log_softmax(1).gather(1, everything.labels[:, None])
    assert score.loss == pytest.approx(losses.mean().item(), rel=1e-6)


def test_fewer_than_five_classes_make_top5_certain():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    parts = [b._replace(labels=b.labels % 3) for b in batches(9, 4)]
    assert run(model, parts).top5 == 100


@pytest.mark.parametrize("is_training", [True, False])
def test_the_model_is_back_in_its_mode(model, is_training):
    model.train(is_training)
    run(model, batches(5, 2))
    assert model.training is is_training

    def broken():
        yield batches(2, 2)[0]
        raise ValueError("a broken image")

    with pytest.raises(ValueError, match="a broken image"):
        run(model, broken())
    assert model.training is is_training


def test_dropout_is_off_and_no_gradient_is_kept(model):
    assert run(model.train(), batches(9, 4)) == run(model.train(), batches(9, 4))
    assert all(p.grad is None for p in model.parameters())


def test_a_stop_is_heeded_before_each_batch_and_leaves_no_score(model):
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(EvaluationStopped):
        run(model.train(), batches(9, 2), should_stop=should_stop)
    assert len(asked) == 3
    assert model.training


def test_nothing_to_evaluate_is_no_division_by_zero(model):
    score = run(model, [])
    assert (score.images, score.top1) == (0, 0.0)
    assert math.isnan(score.loss)


def test_a_row_has_the_keys_of_the_design():
    row = Score(top1=50.0, top5=75.0, loss=1.5, images=8).row(step=3, epoch=0.5, weights="ema")
    expected = {"kind": "eval", "step": 3, "epoch": 0.5, "weights": "ema", "top1": 50.0, "top5": 75.0, "loss": 1.5}
    assert row == expected | {"images": 8}


def test_both_weights_are_evaluated_and_the_training_goes_on_with_its_own(make_loop):
    evaluated, plain = make_loop("evaluation.every_steps=1"), make_loop("evaluation.every_steps=16")
    evaluated.run()
    plain.run()
    for name, tensor in plain.state.model.state_dict().items():
        assert torch.equal(evaluated.state.model.state_dict()[name], tensor)
    rows = [row for row in evaluated.recorder.rows if row["kind"] == "eval"]
    assert [(row["step"], row["weights"]) for row in rows] == [(s, w) for s in range(1, 17) for w in ("model", "ema")]
    assert {row["images"] for row in rows} == {10}


def test_a_row_of_the_ema_is_a_direct_evaluation_of_the_averages(make_loop):
    loop = make_loop()
    loop.run()
    row = next(row for row in loop.recorder.rows[::-1] if row.get("weights") == "ema")
    loop.state.model.load_state_dict(loop.state.model.state_dict() | loop.state.ema.state_dict())
    parts = list(loop.evaluation.batches)
    images, labels = torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
    with torch.no_grad():
        logits = loop.state.model.eval()(loop.step.inputs(images))
    assert row["top1"] == pytest.approx(100 * (logits.argmax(1) == labels).sum().item() / 10)
    assert row["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_a_batch_with_fewer_images_than_parts_takes_part_in_the_other_passes(model):
    taken = []

    class Waiting(Strategy):
        def take_part(self, size):
            taken.append(size)

    evaluation = Evaluation(batches(10, 4), inputs, Precision("float32", CPU), Waiting(model, Group()), input_size=4)
    whole, parts = (evaluation.score(model, parts=count) for count in (1, 3))
    assert taken == [4, 4, 4]  # 4, 4 and 2 images in 3 parts are 2 + 2, 2 + 2 and 1 + 1
    assert parts.top1 == whole.top1


def test_a_second_ctrl_c_while_the_loader_closes_is_not_lost(model):
    """In the garbage collector's hands it would be printed and forgotten."""

    def closing_is_interrupted():
        try:
            yield from batches(8, 2)
        finally:
            raise KeyboardInterrupt

    class Feed:
        def __iter__(self):
            return closing_is_interrupted()

    asked = []
    with pytest.raises(KeyboardInterrupt):
        run(model, Feed(), should_stop=lambda: (asked.append(1), len(asked) > 1)[1])
