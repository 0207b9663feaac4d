"""What each operation does to rows: which rows of its input some of its result need, and how to compute just those.

A rule says of one operation in a traced graph that it is local along the rows of the image. An operation without a
rule, or whose arguments do not fit its rule, is given whole maps: never wrong, but it takes more memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

aten = torch.ops.aten
Range = tuple[int, int]


@dataclass(frozen=True)
class Rows:
    """Where a tensor has the image's rows.

    Attributes:
        dim: the dimension along them.
        size: of that dimension.
        unit: how many of its positions make one row; H and W merged have W. Parts begin and end at multiples of it.
    """

    dim: int
    size: int
    unit: int = 1


@dataclass(frozen=True)
class Cut:
    """The part of a result to compute, [first, stop), from the part [low, high) of an input with `size` positions."""

    first: int
    stop: int
    low: int
    high: int
    size: int


@dataclass(frozen=True)
class Local:
    """An operation that is local along the rows.

    Attributes:
        rows: of the result.
        need: which positions of the inputs some of the result need; they may lie beyond the edges.
        run: args and kwargs of the operation, with the parts of the inputs in place of the inputs -> the part of the
            result.
        view: the result shares memory with its input.
        grain: more than 1 if rows are computed in order, in blocks of so many, each once.
        others: what inputs with other rows than the first are needed for, in place of `need`.
    """

    rows: Rows
    need: Callable[[int, int], Range]
    run: Callable[[Sequence[Any], dict[str, Any], Cut], Any]
    view: bool = False
    grain: int = 1
    others: Mapping[fx.Node, Callable[[int, int], Range]] = field(default_factory=dict)


class Node:
    """A node of the graph, as rules see it: its arguments, and shapes and rows of tensors."""

    def __init__(self, node: fx.Node, rows_of: Callable[[fx.Node], Rows | None], constant: Callable[[fx.Node], Any]):
        self.node, self.rows_of, self.constant = node, rows_of, constant
        self.target: Any = node.target
        self.args: Any = node.args
        self.kwargs: Any = node.kwargs
        self.inputs = [n for n in node.all_input_nodes if rows_of(n) is not None]

    def shape(self, node: Any = None) -> tuple[int, ...]:
        """The shape of the node's value, or of another's."""
        return shape_of(self.node if node is None else node)

    def argument(self, position: int, default: Any = None) -> Any:
        """A positional argument, or its default."""
        return self.args[position] if len(self.args) > position else default

    @property
    def rows(self) -> Rows:
        """Rows of the first argument."""
        rows = self.rows_of(self.args[0])
        if rows is None:
            raise NotLocal
        return rows


class NotLocal(Exception):
    """The operation is not local along the rows with these arguments."""


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's value; of the first one where it has several."""
    value = node.meta["val"]
    return tuple((value[0] if isinstance(value, (tuple, list)) else value).shape)


def rule_of(node: Node) -> Local | None:
    """The rule for a node with at least one input that has rows; None where it needs whole maps."""
    target = node.target
    packet = getattr(target, "overloadpacket", target)
    try:
        if packet in _RULES:
            return _RULES[packet](node)
        if is_pointwise(target):
            return _pointwise(node)
    except NotLocal:
        pass
    return None


_RULES: dict[Any, Callable[[Node], Local]] = {}
# Activations that torch 2.4 does not tag as pointwise, as later versions do.
_UNTAGGED = {
    *(aten.celu, aten.elu, aten.hardshrink, aten.hardsigmoid, aten.hardtanh, aten.leaky_relu, aten.mish, aten.relu6),
    *(aten.selu, aten.softplus, aten.softshrink, aten.threshold),
}


def is_pointwise(target: Any) -> bool:
    """Whether each value of an operation's result depends only on the values at its place in the inputs."""
    return torch.Tag.pointwise in getattr(target, "tags", ()) or getattr(target, "overloadpacket", target) in _UNTAGGED


def rule(*packets: Any) -> Callable[[Callable[[Node], Local]], Callable[[Node], Local]]:
    """Decorator: this makes the rule for these operations; it raises `NotLocal` for arguments that do not fit."""

    def register(make: Callable[[Node], Local]) -> Callable[[Node], Local]:
        _RULES.update(dict.fromkeys(packets, make))
        return make

    return register


def same(first: int, stop: int) -> Range:
    """The need of operations that see one position at a time."""
    return first, stop


def check(condition: bool) -> None:
    """Raise `NotLocal` unless it holds."""
    if not condition:
        raise NotLocal


def gather(x: Tensor, index: Tensor, dim: int) -> Tensor:
    """`index_select` that keeps channels last."""
    if dim == 2 and x.dim() == 4:
        return x.permute(0, 2, 3, 1).index_select(1, index).permute(0, 3, 1, 2)
    return x.index_select(dim, index)


# Operations that see one position at a time


@rule(aten._prelu_kernel, aten._to_copy, aten.where, aten.rsub)
def _pointwise(node: Node) -> Local:
    out = node.shape()
    dims, units, sizes = set(), [1], set()
    for n in node.inputs:
        rows = node.rows_of(n)
        assert rows is not None
        dims.add(len(out) - len(node.shape(n)) + rows.dim)
        units.append(rows.unit)
        sizes.add(rows.size)
    check(len(dims) == 1 and len(sizes) == 1)
    dim = dims.pop()
    check(out[dim] in sizes)
    rows = Rows(dim, out[dim], math.lcm(*units))
    return Local(rows, same, lambda args, kwargs, cut: node.target(*args, **kwargs))


@rule(aten.cat, aten.stack)
def _cat(node: Node) -> Local:
    tensors: Any = node.args[0]
    dim = node.argument(1, 0)
    stacked = node.target.overloadpacket is aten.stack
    found = [node.rows_of(n) for n in tensors]
    rows = found[0]
    check(rows is not None and all(r is not None and (r.dim, r.size) == (rows.dim, rows.size) for r in found))
    assert rows is not None
    dim %= len(node.shape())
    moved = rows.dim + (stacked and dim <= rows.dim)
    check(stacked or dim != rows.dim)
    join = torch.stack if stacked else torch.cat
    unit = math.lcm(*(r.unit for r in found if r is not None))
    return Local(Rows(moved, rows.size, unit), same, lambda args, kwargs, cut: join(args[0], dim))


def along(node: Node, rows: Rows, dims: Sequence[int], removed: bool) -> Rows:
    """Rows of a result whose dimensions `dims`, none of them along the rows, are reduced, or removed."""
    total = len(node.shape(node.args[0]))
    dims = [d % total for d in dims] if dims else list(range(total))
    check(rows.dim not in dims)
    return Rows(rows.dim - removed * sum(d < rows.dim for d in dims), rows.size, rows.unit)


@rule(aten.sum, aten.mean, aten.amax, aten.amin, aten.any, aten.argmax)
def _reduction(node: Node) -> Local:
    dims: Any = node.argument(1, ())
    dims = [dims] if isinstance(dims, int) else dims or ()
    rows = along(node, node.rows, dims, not node.argument(2, node.kwargs.get("keepdim", False)))
    return Local(rows, same, lambda args, kwargs, cut: node.target(*args, **kwargs))


@rule(aten.native_layer_norm)
def _layer_norm(node: Node) -> Local:
    rows, normalised = node.rows, len(node.args[1])
    check(rows.dim < len(node.shape(node.args[0])) - normalised)
    return Local(rows, same, lambda args, kwargs, cut: (F.layer_norm(*args),))


@rule(aten.native_batch_norm, aten._native_batch_norm_legit_no_training, aten.cudnn_batch_norm)
def _batch_norm(node: Node) -> Local:
    """Of networks in evaluation mode, whose statistics are parameters."""
    rows = node.rows
    no_training = node.target.overloadpacket is aten._native_batch_norm_legit_no_training
    check(rows.dim != 1 and (no_training or not node.args[5]))
    eps = node.args[-1]

    def run(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> tuple[Tensor]:
        x, weight, bias, mean, variance = args[:5]
        return (F.batch_norm(x, mean, variance, weight, bias, eps=eps),)

    return Local(rows, same, run)


@rule(aten._softmax)
def _softmax(node: Node) -> Local:
    rows, dim = node.rows, node.args[1]
    check(dim % len(node.shape()) != rows.dim)
    return Local(rows, same, lambda args, kwargs, cut: args[0].softmax(dim))


@rule(aten.roll)
def _roll(node: Node) -> Local:
    dims: Any = node.argument(2, ())
    along(node, node.rows, dims, removed=False)
    return Local(node.rows, same, lambda args, kwargs, cut: torch.roll(*args))


@rule(aten.bmm, aten.mm, aten.addmm)
def _product(node: Node) -> Local:
    """A matrix product with rows in one factor, not those that it sums over (`llie.strips.sums` has these)."""
    check(len(node.inputs) == 1)
    *_, left, right = node.args
    total = len(node.shape())
    for factor, dim in ((left, total - 2), (right, total - 1)):
        rows = node.rows_of(factor)
        if rows is not None:
            check(rows.dim == dim)
            return Local(Rows(dim, rows.size, rows.unit), same, lambda args, kwargs, cut: node.target(*args))
    raise NotLocal
