import pytest

from convrun.distributed.failing.failure import Failure
from convrun.errors import DataError, Diverged, Interrupted, Preempted
from convrun.training.outcome import state_after, state_of_failure


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Diverged("x"), "diverged"),
        (Interrupted("x"), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
        (Preempted("x"), "preempted"),
        (DataError("x"), "failed"),
        (ZeroDivisionError("x"), "failed"),
    ],
)
def test_an_end_has_the_same_state_whichever_process_it_came_from(error, state):
    from convrun.process.world import World

    assert state_after(error) == state
    assert state_of_failure(Failure.of(error, World())) == state
