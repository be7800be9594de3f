"""What working together costs on this machine: sums of gradients, and a step beside plain DistributedDataParallel.

Two processes meet over gloo on the loopback interface, one thread each. First they sum tensors as large as the
gradients of ConvNeXts. Then they take steps of ConvNeXt-Atto (images of 64 pixels, 8 for each process) in turns
(A B A B ...): as convrun does, which sums gradients once a step and asks all processes whether memory sufficed, and
with torch's DistributedDataParallel as its tutorial has it. The claim is about the median of the pairs' ratios: at most
1.05.

Example: python benchmarks/processes.py --pairs 30
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue

import torch
import torch.multiprocessing
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from convrun.distributed.group import Group
from convrun.distributed.meeting.children import free_port
from convrun.distributed.meeting.rendezvous import connect, meet
from convrun.distributed.replicas import Replicas
from convrun.process.world import world_of
from convrun.registry import registry

GRADIENTS = {"one number": 1, "Atto": 3_695_720, "Tiny": 28_589_128, "Base": 88_591_464}
PROCESSES, IMAGES, PIXELS, WARM_UP = 2, 8, 64, 3


def main() -> None:
    """Measures, prints, and ends with 1 if the median ratio is above the limit."""
    options = parsed()
    port = free_port()
    context = torch.multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    processes = [context.Process(target=measure, args=(rank, port, options.pairs, answer)) for rank in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit("a process has failed, see above")
    ratio = answer.get()
    if ratio > options.limit:
        sys.exit(f"the median ratio {ratio:.3f} is above {options.limit:g}")


def parsed() -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=30, help="measured pairs, 15 at least (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=1.05, help="largest median ratio (default: %(default)s)")
    options = parser.parse_args()
    if options.pairs < 15:
        parser.error("a median of fewer than 15 pairs says little")
    return options


def measure(rank: int, port: int, pairs: int, answer: SimpleQueue[float]) -> None:
    """One process's part; rank 0 prints."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    world = world_of(os.environ)
    group = Group(world, meet(world, connect(world), "cpu"), "cpu")
    say = print if rank == 0 else lambda *_: None
    say("sum over 2 processes        median   spread")
    for name, count in GRADIENTS.items():
        numbers = torch.ones(count)
        seconds = timed(lambda numbers=numbers: distributed.all_reduce(numbers), WARM_UP + 9)  # type: ignore[misc]
        say(f"  {name:<12} {4 * count / 1e6:8.1f} MB {1e3 * statistics.median(seconds):8.1f} ms   {spread(seconds)}")
    ours, theirs = convrun_step(group), plain_step()
    for _ in range(WARM_UP):
        ours(), theirs()
    found = [(timed(ours, 1)[0], timed(theirs, 1)[0]) for _ in range(pairs)]
    ratios = [a / b for a, b in found]
    for name, column in (("convrun", 0), ("plain DDP", 1)):
        seconds = [pair[column] for pair in found]
        say(f"a step, {name:<14} {1e3 * statistics.median(seconds):8.1f} ms   {spread(seconds)}")
    median = statistics.median(ratios)
    say(f"ratio of a pair: median {median:.3f}, {min(ratios):.2f} to {max(ratios):.2f}, {pairs} pairs")
    if rank == 0:
        answer.put(median)
    group.close()


def atto() -> nn.Module:
    """The same first weights in each process."""
    torch.manual_seed(0)
    model = registry.find("model", "convnextv2_atto").create(10)
    assert isinstance(model, nn.Module)
    return model.to(memory_format=torch.channels_last)


def convrun_step(group: Group) -> Callable[[], None]:
    """As convrun does it: all processes' shares of the loss are summed, and all are asked whether memory sufficed."""
    model = atto()
    replicas, step, loss = Replicas(model, group), step_of(model), loss_of_images()

    def update() -> None:
        replicas.begin_step()
        (loss(replicas.forward) / PROCESSES).backward()  # type: ignore[no-untyped-call]
        if group.all_true(True):
            step()

    return update


def plain_step() -> Callable[[], None]:
    """DistributedDataParallel divides by the number of processes."""
    model = atto()
    forward, step, loss = DistributedDataParallel(model), step_of(model), loss_of_images()

    def update() -> None:
        loss(forward).backward()  # type: ignore[no-untyped-call]
        step()

    return update


def loss_of_images() -> Callable[[Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]:
    """The loss of a forward pass, on images that stay the same."""
    images, labels = torch.randn(IMAGES, 3, PIXELS, PIXELS), torch.arange(IMAGES) % 10
    return lambda forward: nn.functional.cross_entropy(forward(images), labels)


def step_of(model: nn.Module) -> Callable[[], None]:
    """The optimizer's part of a step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def timed(work: Callable[[], object], times: int) -> list[float]:
    """Seconds of each time, all processes beginning together; without the first ones where there are many."""
    found = []
    for _ in range(times):
        distributed.barrier()
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found[WARM_UP:] if times > WARM_UP else found


def spread(seconds: list[float]) -> str:
    """`201.1 to 230.0`, in milliseconds."""
    return f"{1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f}"


if __name__ == "__main__":
    main()
