import json

import pytest

from convrun.components.callbacks import EarlyStopping
from convrun.contracts.logger import RunInfo
from convrun.display.screen import Screen
from convrun.registry import registry


def stopper(**keys):
    run = RunInfo("tiny", None, {}, total_steps=100, steps_per_epoch=10, start_step=0, screen=Screen())
    return registry.find("callback", "early_stopping").create(run, **keys)


def stops_after(callback, values, metric="top1", weights="model"):
    for number, value in enumerate(values, 1):
        if callback.on_evaluation({"weights": weights, metric: value}):
            return number
    return None


@pytest.mark.parametrize(
    ("keys", "values", "expected"),
    [
        ({"patience": 2}, [10, 20, 30, 40], None),
        ({"patience": 2}, [10, 9, 8], 3),
        ({"patience": 2}, [10, 9, 11, 10, 10.5], 5),
        ({"patience": 1}, [10, 10], 2),
        ({"patience": 1, "min_delta": 0.5}, [10, 10.5], 2),
        ({"patience": 1, "min_delta": 0.5}, [10, 10.6], None),
        ({"patience": 2, "min_delta": 0.5}, [10, 10.4, 10.8], None),  # compared with the best, not with the last
        ({"patience": 2}, [float("nan"), float("nan")], 2),
        ({"patience": 2}, [float("nan"), 1, float("nan"), 2], None),
        ({"patience": 1, "metric": "loss"}, [3, 2, 1], None),
        ({"patience": 1, "metric": "loss"}, [1, 2], 2),
    ],
)
def test_stops_once_patience_is_used_up(keys, values, expected):
    assert stops_after(stopper(**keys), values, keys.get("metric", "top1")) == expected


def test_watches_the_weights_it_is_told():
    assert stops_after(stopper(patience=1, weights="ema"), [3, 2, 1], weights="model") is None
    assert stops_after(stopper(patience=1, weights="ema"), [3, 2, 1], weights="ema") == 2


def test_the_reason_names_metric_and_best():
    callback = stopper(patience=1)
    callback.on_evaluation({"weights": "model", "top1": 61.5})
    assert callback.on_evaluation({"weights": "model", "top1": 60.0}) == (
        "top1 of the model weights has not improved in 1 evaluations (best 61.5)"
    )


def test_goes_on_counting_after_a_resume():
    values = [10, 9, 11, 10, 10.5]
    for cut in range(len(values)):
        first, second = stopper(patience=2), stopper(patience=2)
        assert stops_after(first, values[:cut]) is None
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert stops_after(second, values[cut:]) == len(values) - cut
    assert isinstance(second, EarlyStopping)
