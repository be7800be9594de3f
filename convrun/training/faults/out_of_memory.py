"""A device without enough memory: how to notice, and how much less would fit."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from convrun.plan.arithmetic import divisors

# What says the same without being a torch.OutOfMemoryError: torch's allocator on the CPU, and CUDA's libraries.
SIGNS = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
# oneDNN computes convolutions on the CPU and gives no reason; what it can compute, it has settled before it says these.
SIGNS_OF_ONEDNN = ("could not create a primitive", "could not create a memory object")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory did not suffice."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and (any(sign in text for sign in SIGNS) or text in SIGNS_OF_ONEDNN)
    )


def fits(attempt: Callable[[], object]) -> bool:
    """Makes an attempt; False if the device's memory did not suffice. What the attempt held is free again then."""
    try:
        attempt()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Not in the `except` above: as long as the error lives, its traceback holds every tensor of the attempt.
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    return False


def more_parts(images: int, parts: int) -> int | None:
    """The next number of equal parts to cut a batch into, at least twice as many; None if a part is one image."""
    return next((d for d in divisors(images) if d >= 2 * parts), images if parts < images else None)


def largest_that_fits(images: int, does_fit: Callable[[int], bool], least: int = 1) -> int | None:
    """How many images fit, found out by trying: the parts of a batch that does not fit whole, each half the last."""
    parts = more_parts(images, 1)
    while parts is not None and images // parts >= least:
        if does_fit(images // parts):
            return images // parts
        parts = more_parts(images, parts)
    return None
