import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convrun.errors import KeyProblem
from convrun.plan.arithmetic import (
    MOST_AUTO_MICRO_BATCH,
    accumulation,
    divisors,
    interval,
    micro_batch_of,
    peak_lr,
    steps_per_epoch,
    total_steps,
    workers,
)


def test_an_epoch_of_imagenet_at_4096_has_312_steps():
    assert steps_per_epoch(1_281_167, 4096) == 312  # floor, as the released code counts
    assert total_steps(300, None, 312) == 93_600


def test_steps_as_given_count_more_than_epochs():
    assert total_steps(None, 17, 312) == 17
    assert interval(None, 17, 312) == 17
    assert interval(2, None, 312) == 624


def test_the_linear_scaling_rule():
    assert peak_lr(4e-3, 512, None) == 4e-3
    assert peak_lr(4e-3, 512, 4096) == pytest.approx(5e-4)  # 4e-3 × 512 / 4096


def test_workers_share_the_cores_of_a_node():
    assert workers("auto", 64, 8) == 8
    assert workers("auto", 64, 4) == 8, "8 at most"
    assert workers("auto", 16, 8) == 2
    assert workers("auto", 4, 8) == 1, "1 at least"
    assert workers(0, 64, 8) == 0


@given(st.integers(1, 5000))
def test_divisors_are_all_divisors_in_order(n):
    assert divisors(n) == [d for d in range(1, n + 1) if n % d == 0]


@given(st.integers(1, 2**20), st.integers(1, 64))
def test_an_automatic_micro_batch_is_the_largest_divisor_of_a_share_up_to_128(batch, processes):
    if batch % processes:
        with pytest.raises(KeyProblem, match="do not divide over"):
            micro_batch_of(batch, "auto", processes)
        return
    micro = micro_batch_of(batch, "auto", processes)
    share = batch // processes
    assert share % micro == 0
    assert micro <= MOST_AUTO_MICRO_BATCH == 128
    assert all(share % larger for larger in range(micro + 1, 129))


@given(st.integers(1, 2**20), st.integers(1, 4096), st.integers(1, 64))
def test_processes_times_micro_batch_times_accumulation_is_the_batch(batch, micro, processes):
    try:
        found = micro_batch_of(batch, micro, processes)
    except KeyProblem:
        assert batch % (micro * processes)
        return
    assert found == micro
    assert processes * micro * accumulation(batch, micro, processes) == batch


@given(st.integers(1, 4096), st.integers(2, 64))
def test_batches_named_as_workable_work(batch, processes):
    if batch % processes == 0:
        return
    with pytest.raises(KeyProblem) as caught:
        micro_batch_of(batch, "auto", processes)
    assert caught.value.key == "batch_size"
    batches, counts = caught.value.cure.removeprefix("batch_size can be ").split(", or processes ")
    assert all(int(b) % processes == 0 and abs(int(b) - batch) < processes for b in batches.split(" or "))
    assert all(batch % int(count) == 0 for count in counts.split(" and ")[0].split(", "))


@given(st.integers(2, 4096), st.integers(2, 4096), st.sampled_from([1, 2, 8]))
def test_micro_batches_named_as_workable_work(share, micro, processes):
    if share % micro == 0:
        return
    with pytest.raises(KeyProblem) as caught:
        micro_batch_of(share * processes, micro, processes)
    assert caught.value.key == "micro_batch"
    named = caught.value.cure.removeprefix("micro_batch can be ").split(" and ")[0].split(", ")
    assert all(micro_batch_of(share * processes, int(n), processes) == int(n) for n in named)


def test_a_batch_that_does_not_divide_names_workable_values():
    with pytest.raises(KeyProblem, match=r"^100 images do not divide over 8 processes; batch_size can be 96 or 104, or "
                                         r"processes 1, 2, 4, 5, 10, 20, 25$"):  # fmt: skip
        micro_batch_of(100, "auto", 8)
    with pytest.raises(KeyProblem, match=r"^30 does not divide a batch of 100 on 2 processes, 50 images each; "
                                         r"micro_batch can be 1, 2, 5, 10, 25, 50$"):  # fmt: skip
        micro_batch_of(100, 30, 2)


def test_the_largest_batch_is_planned_at_once():
    assert micro_batch_of(2**20, "auto", 1) == 128
    assert len(divisors(2**20)) == 21
    assert math.isqrt(2**20) == 1024, "the work a share of the largest batch takes"
