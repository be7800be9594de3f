"""The sums of gradients over all processes, once an update, in the portions that DistributedDataParallel hands over."""

# Not `from __future__ import annotations`: torch looks at the hook's annotations, and wants no strings.
from typing import Any

import torch
from torch import Tensor, distributed
from torch._C._distributed_c10d import GradBucket

# After the first update torch lays out the portions anew, in the order in which gradients were ready.
UPDATES_UNTIL_SETTLED = 2


class GradientSums:
    """Remembers what of an update was sent, so that a process that fails in the midst of it can send the rest.

    Attributes:
        are_owed: the others wait, or will, for gradients of this process.
    """

    def __init__(self) -> None:
        self.are_owed = False
        self._updates = 0
        self._under_way: list[distributed.Work] = []
        self._portions: list[dict[str, Any]] = []  # size, dtype and device of those sent
        self._portions_of_all: list[dict[str, Any]] = []  # of the last whole update

    def begin(self) -> None:
        """An update begins: all processes will sum its gradients."""
        self.are_owed, self._under_way, self._portions = True, [], []

    def send(self, portion: Tensor, is_last: bool) -> distributed.Work:
        """Begins to sum the next portion, in place."""
        self._portions.append({"size": portion.shape, "dtype": portion.dtype, "device": portion.device})
        work = self._start(portion)
        if is_last:
            self.are_owed, self._updates, self._portions_of_all = False, self._updates + 1, self._portions
        return work

    def make_up(self) -> bool:
        """Sends zeros for the rest of the update, and waits for all of it; False if the rest is not known."""
        if self._updates < UPDATES_UNTIL_SETTLED:
            return False
        for portion in self._portions_of_all[len(self._portions) :]:
            self._start(torch.zeros(**portion))
        for work in self._under_way:
            work.wait()
        self.are_owed = False
        return True

    def _start(self, portion: Tensor) -> distributed.Work:
        work = distributed.all_reduce(portion, async_op=True)
        assert work is not None
        self._under_way.append(work)
        return work


def sum_up(sums: GradientSums, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """The hook that gets each portion; the sum stays a sum, which torch's own hook would divide."""
    work = sums.send(bucket.buffer(), bucket.is_last())
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future
