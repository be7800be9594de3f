"""The memory that `validate --build` tells."""

import pytest
import torch

from convrun.plan import Machine, make_plan
from convrun.recipe import load_recipe
from convrun.validation.memory_text import memory_lines


def table(*overrides, processes=1):
    recipe = load_recipe("digits_demo", overrides, plugins=False)
    plan = make_plan(recipe, Machine(processes=processes))
    with torch.device("meta"):
        model = plan.model.create(plan.num_classes)
    return memory_lines(plan, model)


def test_each_strategy_has_a_row_with_and_without_checkpointing():
    lines, data = table("training.micro_batch=16", processes=4)
    assert lines[0].startswith("memory       of a process, micro-batch 16, float32")
    labels = ["ddp on 4", "ddp on 4, checkpointing", "fsdp on 4", "fsdp on 4, checkpointing"]
    assert [row["label"] for row in data] == labels
    assert [line[13:39].rstrip() for line in lines[2:]] == labels
    assert data[2]["weights"] == pytest.approx(data[0]["weights"] / 4, abs=1)
    assert data[1]["activations"] < data[0]["activations"]
    assert all(row["total"] == sum(v for k, v in row.items() if k not in ("label", "total")) for row in data)


def test_for_one_process_fsdp_is_shown_on_eight():
    assert [row["label"] for row in table()[1]][::2] == ["ddp on 1", "fsdp on 8"]


def test_what_would_be_refused_has_no_row():
    assert [row["label"] for row in table("optimizer={name: adamp, lr: 1e-3}")[1]][::2] == ["ddp on 1"]
    # batch norm, in blocks of another name
    small = ("model=timm/resnet18", "optimizer={name: adamw, lr: 1e-3}", "init=null")
    assert [row["label"] for row in table(*small)[1]] == ["ddp on 1"]


def test_an_optimizer_that_nobody_knows_has_no_table():
    assert table("optimizer={name: timm/nadamw, lr: 1e-3}") == ([], [])
