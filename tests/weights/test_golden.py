"""Checkpoints of the released training code: read, renamed, and its logits reproduced."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from convrun.models.isotropic import IsotropicConvNeXt
from convrun.models.shapes import IsotropicShape
from convrun.recipe.sections import Init
from convrun.registry import registry
from convrun.weights.initial import load_initial

GOLDEN = Path(__file__).parents[1] / "golden"
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def staged(*depths):
    return lambda classes: registry.find("model", "convnext").create(classes, depths=depths, dims=(4, 8, 16, 32))


@pytest.mark.parametrize(
    ("name", "create"),
    [
        ("finetune_3-3-27-3", staged(3, 3, 27, 3)),
        ("pretrain_3-3-9-3", staged(3, 3, 9, 3)),
        ("isotropic_4", lambda classes: IsotropicConvNeXt(IsotropicShape(4, 32), classes)),
    ],
)
def test_the_released_codes_checkpoints_give_its_logits(name, create):
    expected = torch.tensor(json.loads((GOLDEN / f"{name}.json").read_text())["logits_first_batch_eval"])
    images = torch.from_numpy(np.load(GOLDEN / f"{name}.batches.npz")["images"][0])
    model = create(expected.shape[1])
    line = load_initial(model, Init(from_=str(GOLDEN / f"{name}.init.pth")), expected.shape[1])
    assert line == f"init: {len(model.state_dict())} tensors loaded from {name}.init.pth (released layout)"
    with torch.no_grad():
        logits = model.eval()((images / 255 - MEAN) / STD)
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)
