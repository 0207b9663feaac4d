"""This process's place among the processes of a run, and the exchange of tensors between them.

A single process is rank 0 of 1, and every exchange returns its argument.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def joined() -> bool:
    """Whether this process belongs to a group of processes."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes in the group; 1 without one."""
    return dist.get_world_size() if joined() else 1


def rank() -> int:
    """This process's number in the group; 0 without one."""
    return dist.get_rank() if joined() else 0


def from_first_rank(x: Tensor) -> Tensor:
    """Rank 0's values, on every rank; `x` is overwritten."""
    if world_size() > 1:
        dist.broadcast(x, src=0)
    return x


def gather_batch(x: Tensor) -> Tensor:
    """The samples of all ranks, in rank order; each sample gets the gradients of the losses of all ranks.

    As DDP averages gradients over ranks, a loss that is a mean over the batch has the same gradient as in one process
    with the whole batch.

    Args:
        x: (B, ...), with the same shape on all ranks.

    Returns:
        (B times world size, ...), the same on every rank.
    """
    return _GatherBatch.apply(x) if world_size() > 1 else x


class _GatherBatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(world_size())[rank()]
