"""Copies a checkpoint's content: trees of containers, tensors and plain values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

Tree = TypeVar("Tree")


def copied(tree: Tree) -> Tree:
    """A copy in the host's memory, which further training does not change; strides are preserved.

    Copies from a GPU to pinned memory are queued, and waited for once.
    """
    cuda = any(tensor.is_cuda for tensor in tensors_of(tree))
    result = mapped(tree, _from_gpu if cuda else _clone)
    if cuda:
        torch.cuda.synchronize()
    return result


def _clone(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _from_gpu(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return _clone(tensor)
    # torch caches pinned memory that is freed, so only the first copy pays for allocating it.
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor.detach(), non_blocking=True)


def mapped(tree: Tree, function: Callable[[Tensor], Tensor]) -> Tree:
    """The same tree with every tensor replaced; a container that is met twice is copied once."""
    seen: dict[int, Any] = {}

    def visit(node: Any) -> Any:
        if not isinstance(node, Tensor | dict | list | tuple):
            return node
        if id(node) not in seen:
            seen[id(node)] = visited(node)
        return seen[id(node)]

    def visited(node: Any) -> Any:
        if isinstance(node, Tensor):
            return function(node)
        if not isinstance(node, dict):
            return type(node)([visit(value) for value in node])
        new = copy.copy(node)  # keeps the attributes of torch's OrderedDicts
        for key, value in node.items():
            new[key] = visit(value)
        return new

    try:
        result: Tree = visit(tree)
        return result
    finally:
        # The two functions refer to each other, so they and what they hold stay until the garbage collector comes.
        seen.clear()


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """Every tensor of a tree; a container that is met twice is walked through once."""
    seen: set[int] = set()
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Tensor):
            yield node
        elif isinstance(node, dict | list | tuple) and id(node) not in seen:
            seen.add(id(node))
            nodes += node.values() if isinstance(node, dict) else node


def bytes_of(tree: Any) -> int:
    """Bytes of all tensors of a tree."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(tree))
