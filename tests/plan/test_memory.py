"""The memory of one process, by formula."""

import dataclasses

import pytest

from convrun.plan import Machine, make_plan, warnings
from convrun.plan.memory import MemoryNeed, ModelSize, memory_need
from convrun.recipe import load_recipe

SIZE = ModelSize(parameters=1000, largest_unit=100, activations=50, checkpointed_activations=20)
ADAMW = {
    "micro_batch": 8,
    "accumulation": 1,
    "slots": 2,
    "has_ema": True,
    "compute_bytes": 4,
    "is_checkpointed": False,
}


def test_ddp_holds_all_in_each_process():
    assert memory_need(SIZE, "ddp", 4, **ADAMW) == MemoryNeed(4000, 4000, 8000, 4000, 0, 400)
    assert memory_need(SIZE, "ddp", 4, **ADAMW) == memory_need(SIZE, "ddp", 1, **ADAMW)


def test_fsdp_holds_a_share_and_what_is_on_its_way():
    # of 100 weights in float32: gathered, the next ones, the gradient, its sum
    assert memory_need(SIZE, "fsdp", 4, **ADAMW) == MemoryNeed(1000, 1000, 2000, 1000, 1600, 400)


def test_fsdp_on_one_process_is_ddp():
    assert memory_need(SIZE, "fsdp", 1, **ADAMW) == memory_need(SIZE, "ddp", 1, **ADAMW)


def test_gradients_are_whole_until_the_last_micro_batch():
    assert memory_need(SIZE, "fsdp", 4, **ADAMW | {"accumulation": 2}).gradients == 1000 + 4000


def test_bf16_keeps_copies_or_gathers_half():
    bf16 = ADAMW | {"compute_bytes": 2}
    assert memory_need(SIZE, "ddp", 4, **bf16).to_compute == 2000
    assert memory_need(SIZE, "fsdp", 4, **bf16).to_compute == 100 * (2 + 2 + 2 + 4)


def test_checkpointing_changes_activations_alone():
    without, with_it = (memory_need(SIZE, "fsdp", 4, **ADAMW | {"is_checkpointed": value}) for value in (False, True))
    assert with_it == dataclasses.replace(without, activations=8 * 20)
    assert without.total == 1000 + 1000 + 2000 + 1000 + 1600 + 400


@pytest.mark.parametrize(("processes", "is_sharded"), [(1, False), (2, True)])
def test_fsdp_on_one_process_shards_nothing_and_says_so(processes, is_sharded):
    recipe = load_recipe("digits_demo", ["distributed.strategy=fsdp", "training.micro_batch=32"], plugins=False)
    plan = make_plan(recipe, Machine(processes=processes))
    assert plan.is_sharded == is_sharded
    assert (
        any("fsdp has no effect: a single process holds all weights" in text for text in warnings(plan)) != is_sharded
    )
