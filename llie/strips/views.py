"""Rules of operations that only rearrange maps: views, transposed, split and expanded maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llie.strips.rules import Cut, Local, Node, Range, Rows, along, check, rule, same

aten = torch.ops.aten


@rule(aten.alias, aten.alias_copy, aten.detach, aten.detach_copy, aten.lift_fresh_copy, aten.clone)
def _identity(node: Node) -> Local:
    layout = node.kwargs.get("memory_format")

    def run(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> Tensor:
        return args[0].contiguous(memory_format=layout) if layout is torch.channels_last else args[0]

    return Local(node.rows, same, run, view=True)


@rule(aten.permute, aten.permute_copy, aten.transpose, aten.transpose_copy)
def _permute(node: Node) -> Local:
    total, rows = len(node.shape()), node.rows
    if len(node.args) == 3:
        order = list(range(total))
        first, second = (int(d) % total for d in node.args[1:])
        order[first], order[second] = second, first
    else:
        order = [int(d) % total for d in node.args[1]]
    moved = Rows(order.index(rows.dim), rows.size, rows.unit)
    return Local(moved, same, lambda args, kwargs, cut: args[0].permute(order), view=True)


@rule(aten.unsqueeze, aten.unsqueeze_copy)
def _unsqueeze(node: Node) -> Local:
    rows, dim = node.rows, int(node.args[1]) % len(node.shape())
    moved = Rows(rows.dim + (dim <= rows.dim), rows.size, rows.unit)
    return Local(moved, same, lambda args, kwargs, cut: args[0].unsqueeze(dim), view=True)


@rule(aten.squeeze, aten.squeeze_copy)
def _squeeze(node: Node) -> Local:
    dims: Any = node.args[1]
    dims = [dims] if isinstance(dims, int) else dims
    dims = tuple(d for d in dims if node.shape(node.args[0])[d] == 1)
    rows = along(node, node.rows, dims, removed=True)
    return Local(rows, same, lambda args, kwargs, cut: args[0].squeeze(dims), view=True)


@rule(aten.select, aten.select_copy, aten.unbind, aten.unbind_copy)
def _select(node: Node) -> Local:
    dim = node.argument(1, 0)
    rows = along(node, node.rows, [dim], removed=True)
    unbound = node.target.overloadpacket in (aten.unbind, aten.unbind_copy)
    take = torch.unbind if unbound else torch.select
    return Local(rows, same, lambda args, kwargs, cut: take(*args), view=True)


@rule(aten.split, aten.split_copy, aten.split_with_sizes, aten.split_with_sizes_copy)
def _split(node: Node) -> Local:
    dim = node.argument(2, 0)
    along(node, node.rows, [dim], removed=False)
    return Local(node.rows, same, lambda args, kwargs, cut: torch.split(args[0], args[1], dim), view=True)


@rule(aten.slice, aten.slice_copy)
def _slice(node: Node) -> Local:
    rows, shape = node.rows, node.shape()
    dim, start = node.argument(1, 0) % len(shape), node.argument(2) or 0
    step = node.argument(4, 1)
    whole = node.shape(node.args[0])[dim]
    start = min(start + whole if start < 0 else start, whole)
    if dim != rows.dim:
        place = slice(start, start + (shape[dim] - 1) * step + 1, step)
        index = (slice(None),) * dim + (place,)
        return Local(rows, same, lambda args, kwargs, cut: args[0][index], view=True)
    if start == 0 and step == 1 and shape[dim] == whole:
        return Local(rows, same, lambda args, kwargs, cut: args[0], view=True)

    def need(first: int, stop: int) -> Range:
        return start + first * step, start + (stop - 1) * step + 1

    index = (slice(None),) * dim + (slice(None, None, step),)
    return Local(Rows(dim, shape[dim]), need, lambda args, kwargs, cut: args[0][index], view=True)


@rule(aten.view, aten.view_copy, aten._unsafe_view, aten.reshape)
def _view(node: Node) -> Local:
    rows, before, after = node.rows, node.shape(node.args[0]), node.shape()
    # The dimension before which as many values lie as before the rows, and which is not of size one without need.
    ahead = math.prod(before[: rows.dim])
    dims = [d for d in range(len(after)) if math.prod(after[:d]) == ahead]
    check(bool(dims))
    dim = next((d for d in dims if after[d] != 1), dims[0])
    inner, outer = math.prod(before[rows.dim + 1 :]), math.prod(after[dim + 1 :])
    unit = math.lcm(outer, rows.unit * inner) // outer
    check(after[dim] % unit == 0)

    def need(first: int, stop: int) -> Range:
        return first * outer // inner, -(-stop * outer // inner)

    def run(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> Tensor:
        return args[0].reshape(*after[:dim], cut.stop - cut.first, *after[dim + 1 :])

    return Local(Rows(dim, after[dim], unit), need, run, view=True)


@rule(aten.expand, aten.expand_copy)
def _expand(node: Node) -> Local:
    rows, shape = node.rows, node.shape()
    dim = rows.dim + len(shape) - len(node.shape(node.args[0]))
    check(shape[dim] == rows.size)

    def run(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> Tensor:
        return args[0].expand(*shape[:dim], cut.stop - cut.first, *shape[dim + 1 :])

    return Local(Rows(dim, rows.size, rows.unit), same, run, view=True)
