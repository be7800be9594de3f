"""What the ranks of a run do together: tell each other values, wait, add up tensors.

Every method is collective: all ranks call it, in the same order. Where there is one rank it costs nothing.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from convrun.distributed.meeting.interfaces import use_interface_of
from convrun.process.world import World

if TYPE_CHECKING:
    from torch import Tensor

    from convrun.distributed.failing.failure import Failure
    from convrun.distributed.meeting.rendezvous import Meeting

T = TypeVar("T")
# A process that is gone, or silent, is found by the watch (convrun.distributed.failing.watch) within seconds or a
# minute. This ends only what nothing else would, and must not end the wait for a rank 0 that writes a checkpoint to a
# slow disk.
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=60)
INTERFACES = (
    "if the hosts have several network interfaces, GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the one to use "
    "(ip address lists them)"
)


class Group:
    """All ranks of a run, as one of them sees them; without a meeting, this one alone.

    Args:
        world: this process's place.
        meeting: where all have met.
        device: `cuda` computes sums with NCCL, `cpu` with gloo.

    Attributes:
        on_failure: called from another thread when the run has failed elsewhere, just before this process ends.
        cause_of: what ended the run, here or elsewhere, given the error that this process noticed; may take seconds.
            None where the error is all there is.
    """

    def __init__(self, world: World | None = None, meeting: Meeting | None = None, device: str = "cpu") -> None:
        self.world = world or World()
        self.backend = "nccl" if device == "cuda" else "gloo"
        self._host_group: Any = None
        self.on_failure: Callable[[Failure], None] = lambda failure: None
        self.cause_of: Callable[[BaseException], Failure | None] = lambda error: None
        if meeting is not None:
            try:
                self._open(meeting)
            except RuntimeError as error:
                error.add_note(INTERFACES)
                raise

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self.world.rank

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.world.size

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes the run folder."""
        return self.rank == 0

    def _open(self, meeting: Meeting) -> None:
        import torch
        from torch import distributed
        from torch._C._distributed_c10d import PrefixStore

        use_interface_of(meeting.address)
        device = torch.device("cuda", torch.cuda.current_device()) if self.backend == "nccl" else None
        distributed.init_process_group(
            self.backend,
            store=PrefixStore("group", meeting.store),
            rank=self.rank,
            world_size=self.size,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=device,
        )
        # Python values and votes travel between the hosts, where no device has to be waited for.
        self._host_group = distributed.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)

    def close(self) -> None:
        """Takes the connections down."""
        if self._host_group is not None:
            from torch import distributed

            self._host_group = None
            distributed.destroy_process_group()

    def from_first(self, make: Callable[[], T]) -> T:
        """Rank 0's value, made there and given to all."""
        if self.size == 1:
            return make()
        from torch import distributed

        held = [make() if self.is_first else None]
        distributed.broadcast_object_list(held, src=0, group=self._host_group)
        return held[0]  # type: ignore[return-value]

    def from_all(self, value: T) -> list[T]:
        """The values of all ranks, by rank."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value, group=self._host_group)
        return values

    def all_true(self, flag: bool) -> bool:
        """Whether a flag is set on every rank; the hosts wait for each other, no device does."""
        if self.size == 1:
            return flag
        import torch
        from torch import distributed

        votes = torch.tensor(int(flag))
        distributed.all_reduce(votes, distributed.ReduceOp.MIN, group=self._host_group)
        return bool(votes)

    def wait(self) -> None:
        """Returns once all ranks have called it."""
        if self.size > 1:
            from torch import distributed

            distributed.barrier(group=self._host_group)

    @contextlib.contextmanager
    def one_of_each_node_first(self) -> Iterator[None]:
        """What is done inside, one rank of each node does before the others there begin."""
        if self.world.local_rank:
            self.wait()
        yield
        if not self.world.local_rank:
            self.wait()

    def add_up(self, tensor: Tensor) -> Tensor:
        """Makes a tensor, in place, the sum of all ranks' tensors; the host does not wait for the device."""
        if self.size > 1:
            from torch import distributed

            distributed.all_reduce(tensor)
        return tensor

    def start_largest(self, tensor: Tensor) -> Any:
        """Begins to make a CPU tensor, in place, the largest of all ranks' ones; `.wait()` on what is returned."""
        from torch import distributed

        return distributed.all_reduce(tensor, distributed.ReduceOp.MAX, group=self._host_group, async_op=True)
