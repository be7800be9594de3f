import json

import pytest
import torch

from convrun import checkpoints
from convrun.errors import Diverged

# Warm-up from 0: the first steps are harmless, the later ones (lr up to 1e20 without clipping) are not.
WILD = (
    "optimizer={name: sgd, lr: 1e20, momentum: 0}",
    "scheduler={name: constant, warmup_steps: 12}",
    "training.clip_grad_norm=null",
    "checkpoints={every_steps: 1, keep: {last: 1}}",
)


@pytest.fixture
def diverged(train, tmp_path):
    with pytest.raises(Diverged, match=r"after step|in the steps") as caught:
        train(*WILD)
    assert caught.value.exit_code == 3
    assert "lower optimizer.lr, lengthen the warm-up, or set training.clip_grad_norm" in str(caught.value)
    return tmp_path / "run"


def test_the_last_good_checkpoint_stays_and_is_finite(diverged):
    (step,) = checkpoints.steps_in(diverged / "checkpoints")
    saved = checkpoints.load(checkpoints.path_of(diverged / "checkpoints", step))
    assert step >= 1
    assert all(torch.isfinite(tensor).all() for tensor in saved["model"].values())
    assert all(torch.isfinite(tensor).all() for tensor in saved["ema"].values())


def test_status_and_log_say_so(diverged):
    status = json.loads((diverged / "status.json").read_text())
    assert status["state"] == "diverged"
    assert "the last checkpoint is from before" in status["error"]
    assert status["error"] in (diverged / "train.log").read_text()
    assert not (diverged / "weights").exists()


def test_metrics_stay_valid_json(diverged):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    for line in (diverged / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_started_again_it_diverges_again_at_the_same_step(diverged, train):
    before = json.loads((diverged / "status.json").read_text())
    with pytest.raises(Diverged):
        train(*WILD)
    after = json.loads((diverged / "status.json").read_text())
    assert (after["state"], after["step"], after["error"]) == (before["state"], before["step"], before["error"])
