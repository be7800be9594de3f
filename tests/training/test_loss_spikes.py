import dataclasses
import json
import random
import statistics

import pytest

from convrun.training.loss_spikes import DEVIATIONS, LEAST_RISE, MEMORY, LossSpikes


def noisy(count, mean=2.0, deviation=0.1, seed=0):
    draws = random.Random(seed)
    return [draws.gauss(mean, deviation) for _ in range(count)]


def marked(losses, spikes=None):
    spikes = spikes or LossSpikes()
    return [i for i, loss in enumerate(losses) if spikes.is_spike(loss)]


def test_a_loss_far_above_the_others_is_marked_and_ordinary_noise_is_not():
    losses = noisy(1000)
    assert marked(losses) == []
    losses[700] = 4.0
    assert marked(losses) == [700]


def test_the_start_is_never_marked():
    losses = noisy(MEMORY + 1)
    losses[MEMORY - 1] = 50.0
    assert marked(losses) == []
    later = noisy(MEMORY + 1)
    later[MEMORY] = 50.0
    assert marked(later) == [MEMORY]


def test_a_falling_loss_is_not_marked():
    fall = [7 * 0.99**i + noise for i, noise in enumerate(noisy(2000, mean=0.1, deviation=0.01))]
    assert marked(fall) == []


def test_seven_deviations_next_to_nothing_are_no_news():
    steady = noisy(500, mean=1.0, deviation=1e-4)
    assert marked([*steady, 1 + 0.9 * LEAST_RISE]) == []
    assert marked([*steady, 1 + 1.1 * LEAST_RISE]) == [500]


def test_a_rise_of_less_than_seven_deviations_is_none():
    spikes = LossSpikes()
    marked(noisy(2000, mean=1.0, deviation=0.2), spikes)
    limit = spikes.mean + DEVIATIONS * spikes.variance**0.5
    assert not dataclasses.replace(spikes).is_spike(limit * 0.99)
    assert dataclasses.replace(spikes).is_spike(limit * 1.01)


def test_over_the_first_steps_mean_and_variance_are_the_plain_ones():
    losses, spikes = noisy(MEMORY), LossSpikes()
    marked(losses, spikes)
    assert spikes.mean == pytest.approx(statistics.fmean(losses), rel=1e-12)
    assert spikes.variance == pytest.approx(statistics.pvariance(losses), rel=1e-9)


def test_the_averages_survive_as_json():
    losses, first = noisy(300), LossSpikes()
    marked(losses[:150], first)
    second = LossSpikes(**json.loads(json.dumps(dataclasses.asdict(first))))
    marked(losses[150:], first)
    marked(losses[150:], second)
    assert first == second


@pytest.fixture
def spiking(monkeypatch):
    """A short memory, and images that are far too bright in step 12."""
    from convrun.training.step import Step

    monkeypatch.setattr("convrun.training.loss_spikes.MEMORY", 5)
    accumulate = Step.accumulate
    monkeypatch.setattr(
        Step,
        "accumulate",
        lambda self, micro_batch: accumulate(self, micro_batch) * (100 if micro_batch.step + 1 == 11 else 1),
    )


def test_a_spike_is_in_the_row_and_in_the_log(spiking, train, rows, tmp_path):
    train("logging.to=[jsonl, csv, tensorboard, console]")
    found = [row for row in rows(tmp_path / "run") if "spike_step" in row]
    assert [(row["step"], row["spike_step"]) for row in found] == [(12, 11)]
    line = f"loss spike: {found[0]['spike_loss']:.4g} in step 11"
    assert (tmp_path / "run" / "train.log").read_text().count(line) == 1


@pytest.mark.parametrize("step", [10, 11])
def test_a_spike_is_marked_after_a_resume_too(step, spiking, train, train_in, rows, tmp_path):
    import signal

    from convrun.errors import Preempted

    train_in(tmp_path / "reference")
    with pytest.raises(Preempted):
        train(at={step: lambda: signal.raise_signal(signal.SIGTERM)})
    train()
    assert rows(tmp_path / "run") == rows(tmp_path / "reference")
