"""Sums over the whole image, taken strip by strip: means, norms, products over all pixels, normalisation by groups.

Partial results are added in float64, so that the order of the strips does not show.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llie.strips.rules import Local, Node, rule

aten = torch.ops.aten
EXACT = 2**14  # pixels whose mean and variance PyTorch computes with an error of a few roundings


@dataclass(frozen=True)
class Sum:
    """How an operation that sums over the rows is computed in parts.

    Attributes:
        part: args of the operation with strips in place of its inputs -> the partial result.
        join: two partial results -> one.
        finish: the partial result of all rows -> the operation's result.
        start: the first partial result -> what `join` expects.
    """

    part: Callable[[Sequence[Any]], Any]
    join: Callable[[Any, Any], Any]
    finish: Callable[[Any], Any]
    start: Callable[[Any], Any] = lambda part: part


def sum_of(node: Node) -> Sum | None:
    """How a node without a rule sums over the rows; None where it does something else."""
    make = _SUMS.get(getattr(node.target, "overloadpacket", node.target))
    return None if make is None else make(node)


def group_statistics(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal standard deviation of each group of channels, both (B, groups)."""
    batch, channels, height, width = x.shape
    return torch.native_group_norm(x, None, None, batch, channels, height * width, groups, eps)[1:]


def group_normalise(x: Tensor, statistics: tuple[Tensor, Tensor], weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Group normalisation of a strip, given the statistics of the whole image."""
    mean, scale = (s.repeat_interleave(x.shape[1] // s.shape[1], 1) for s in statistics)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return torch.addcmul(shift[..., None, None], x, scale[..., None, None])


@rule(group_normalise)
def _normalise(node: Node) -> Local:
    return Local(node.rows, lambda first, stop: (first, stop), lambda args, kwargs, cut: group_normalise(*args))


_SUMS: dict[Any, Callable[[Node], Sum | None]] = {}


def _sum(*packets: Any) -> Callable[[Callable[[Node], Sum | None]], Callable[[Node], Sum | None]]:
    def register(make: Callable[[Node], Sum | None]) -> Callable[[Node], Sum | None]:
        _SUMS.update(dict.fromkeys(packets, make))
        return make

    return register


def _dims(node: Node) -> tuple[list[int], bool]:
    dims: Any = node.argument(1)
    dims = [dims] if isinstance(dims, int) else dims
    keepdim = bool(node.argument(2, node.kwargs.get("keepdim", False)))
    return list(dims) if dims else list(range(len(node.shape(node.args[0])))), keepdim


@_sum(aten.sum, aten.mean)
def _total(node: Node) -> Sum:
    dims, keepdim = _dims(node)
    shape = node.shape(node.args[0])
    count = math.prod(shape[d] for d in dims) if node.target.overloadpacket is aten.mean else 1
    dtype = node.node.meta["val"].dtype
    return Sum(lambda args: args[0].sum(dims, keepdim).double(), torch.add, lambda total: (total / count).to(dtype))


@_sum(aten.amax, aten.amin, aten.any)
def _extreme(node: Node) -> Sum:
    packet = node.target.overloadpacket
    join = {aten.amax: torch.maximum, aten.amin: torch.minimum, aten.any: torch.logical_or}[packet]
    arguments = node.args[1:]
    return Sum(lambda args: node.target(args[0], *arguments, **node.kwargs), join, lambda total: total)


@_sum(aten.linalg_vector_norm)
def _norm(node: Node) -> Sum | None:
    if node.argument(1, 2) != 2:
        return None
    dims: Any = node.argument(2) or list(range(len(node.shape(node.args[0]))))
    keepdim, dtype = bool(node.argument(3, False)), node.node.meta["val"].dtype
    return Sum(
        lambda args: torch.linalg.vector_norm(args[0], 2, dims, keepdim).double().square(),
        torch.add,
        lambda total: total.sqrt().to(dtype),
    )


@_sum(aten.bmm, aten.mm)
def _product(node: Node) -> Sum | None:
    """A matrix product that sums over the rows, which are the inner dimension of both factors."""
    left, right = (node.rows_of(factor) for factor in node.args[:2])
    total = len(node.shape())
    if left is None or right is None or (left.dim, right.dim) != (total - 1, total - 2):
        return None
    dtype = node.node.meta["val"].dtype
    return Sum(lambda args: (args[0] @ args[1]).double(), torch.add, lambda product: product.to(dtype))


@_sum(aten._adaptive_avg_pool2d)
def _bins(node: Node) -> Sum | None:
    """Means over a grid: first along each row, which are kept; their means along the columns at the end."""
    rows, (down, across) = node.rows, node.args[1]
    if rows.dim != 2:
        return None
    return Sum(
        lambda args: F.adaptive_avg_pool2d(args[0], (args[0].shape[2], across)),
        lambda first, second: torch.cat([first, second], 2),
        lambda means: F.adaptive_avg_pool2d(means, (down, across)),
    )


@_sum(group_statistics)
def _groups(node: Node) -> Sum:
    """Count, mean and squared deviations of each group, joined as by Chan et al."""
    groups, eps = node.args[1:]
    dtype = node.node.meta["val"][0].dtype

    def part(args: Sequence[Any]) -> tuple[int, Tensor, Tensor]:
        rows = args[0].split(max(1, EXACT // args[0].shape[3]), 2)
        return functools.reduce(join, map(part_of_rows, rows))

    def part_of_rows(x: Tensor) -> tuple[int, Tensor, Tensor]:
        mean, scale = group_statistics(x, groups, 0.0)
        count = x[0].numel() // groups
        return count, mean.double(), scale.double() ** -2 * count

    def join(first: Any, second: Any) -> tuple[int, Tensor, Tensor]:
        (m, mean, squares), (n, other, others) = first, second
        change = other - mean
        return m + n, mean + change * (n / (m + n)), squares + others + change.square() * (m * n / (m + n))

    def finish(total: Any) -> tuple[Tensor, Tensor]:
        count, mean, squares = total
        return mean.to(dtype), (squares / count + eps).rsqrt().to(dtype)

    return Sum(part, join, finish)
