"""Rules of operations that see the rows around theirs: convolutions, resizing, padding, and picking rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llie.ops import depthwise
from llie.ops.padding import reflected
from llie.ops.parts import new_map
from llie.ops.winograd import Kernels, pays, winograd_of_rows
from llie.strips.rules import Cut, Local, Node, Range, Rows, check, gather, rule, same

aten = torch.ops.aten


def _image_rows(node: Node) -> Rows:
    """Rows of a map (B, C, H, W) that is the only input with rows."""
    rows = node.rows
    check(len(node.inputs) == 1 and len(node.shape(node.args[0])) == 4 and rows.dim == 2)
    return rows


def convolution_and_relu(*args: Any) -> Tensor:
    """A convolution with the arguments of `aten.convolution`, then ReLU."""
    return torch.relu_(aten.convolution(*args))


@rule(aten.convolution, convolution_and_relu)
def _convolution(node: Node) -> Local:
    relu = node.target is convolution_and_relu
    stride, padding, dilation, transposed, extra, groups = node.args[3:9]
    check(len(node.shape()) == 4)
    (s, _), (p, p_across), (d, _) = stride, padding, dilation
    _image_rows(node)
    height = node.shape()[2]
    k = node.shape(node.args[1])[2]
    if transposed:
        check(d == 1 and not any(extra))

        def from_rows(first: int, stop: int) -> Range:
            return -(-(first + p - k + 1) // s), (stop - 1 + p) // s + 1

        def spread(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> Tensor:
            x, weight, bias = args[:3]
            y = F.conv_transpose2d(x, weight, bias, stride, (0, p_across), 0, groups)
            y = y.narrow(2, cut.first - cut.low * s + p, cut.stop - cut.first)
            return y.relu_() if relu else y

        return Local(Rows(2, height), from_rows, spread)

    stays = (*stride, *dilation) == (1, 1, 1, 1) and p == p_across == k // 2
    keeps_size = stays and node.shape(node.args[1])[2:] == (3, 3) and groups == 1

    def need(first: int, stop: int) -> Range:
        return first * s - p, (stop - 1) * s - p + (k - 1) * d + 1

    kept: list[Kernels] = []  # of the weight, which is the same for all strips, unless it depends on the image

    def kernels_of(weight: Tensor) -> Kernels:
        if not kept or not kept[0].are_of(weight):
            kept[:] = [Kernels(weight)]
        return kept[0]

    def run(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> Tensor:
        x, weight, bias = args[:3]
        if stays and depthwise.suits(x, weight, groups):
            y = depthwise.convolve(x, weight, bias, cut.first - cut.low, cut.stop - cut.first)
            return y.relu_() if relu else y
        if keeps_size and pays(x, weight):
            return winograd_of_rows(x, kernels_of(weight), bias, cut.first - cut.low, cut.stop - cut.first, relu)
        if stays and k == 1 and _is_product(x, weight, groups):
            y = _product(x, weight, bias)
            return y.relu_() if relu else y
        low, high = need(cut.first, cut.stop)
        x = _zeros_around(x, max(0, -low), max(0, high - cut.size))
        y = F.conv2d(x, weight, bias, stride, (0, p_across), dilation, groups)
        return y.relu_() if relu else y

    return Local(Rows(2, height), need, run)


def _is_product(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether a 1x1 convolution is a product of matrices without copies, in float32 on a CPU."""
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    in_order = x.is_contiguous(memory_format=torch.channels_last) and not torch.is_grad_enabled()
    return groups == 1 and weight.shape[3] == 1 and plain and in_order


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution; see `llie.ops.parts.new_map`."""
    y = new_map((len(x), len(weight), *x.shape[2:]), x.dtype)
    pixels, results = (t.permute(0, 2, 3, 1).view(-1, t.shape[1]) for t in (x, y))
    matrix = weight[:, :, 0, 0].T
    if bias is None:
        torch.mm(pixels, matrix, out=results)
    else:
        torch.addmm(bias, pixels, matrix, out=results)
    return y


def _zeros_around(x: Tensor, above: int, below: int) -> Tensor:
    return F.pad(x, (0, 0, above, below)) if above or below else x


@rule(aten.avg_pool2d)
def _avg_pool(node: Node) -> Local:
    _image_rows(node)
    kernel = node.args[1]
    stride, padding, ceil = node.argument(2) or kernel, node.argument(3, (0, 0)), node.argument(4, False)
    check(not any(padding) and not ceil)
    k, s = kernel[0], stride[0]
    return Local(
        Rows(2, node.shape()[2]),
        lambda first, stop: (first * s, (stop - 1) * s + k),
        lambda args, kwargs, cut: F.avg_pool2d(args[0], kernel, stride),
    )


@rule(aten.pixel_shuffle)
def _pixel_shuffle(node: Node) -> Local:
    rows, r = _image_rows(node), int(node.args[1])

    def run(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> Tensor:
        return F.pixel_shuffle(args[0], r).narrow(2, cut.first - cut.low * r, cut.stop - cut.first)

    return Local(Rows(2, rows.size * r), lambda first, stop: (first // r, -(-stop // r)), run)


@rule(aten.upsample_bilinear2d)
def _bilinear(node: Node) -> Local:
    rows, (height, width) = _image_rows(node), node.shape()[2:]
    align, factors = node.args[2], list(node.args[3:])
    if len(factors) == 1:  # the form that gets a list of them, or None
        factors = list(factors[0] or (None, None))
    factors = [*factors, None, None]
    low, high, weight = _between(rows.size, height, bool(align), factors[0])
    before, after = low.tolist(), high.tolist()

    def need(first: int, stop: int) -> Range:
        return before[first], after[stop - 1] + 1

    def resize_across(x: Tensor) -> Tensor:
        return aten.upsample_bilinear2d(x, [x.shape[2], width], align, None, factors[1])

    def run(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> Tensor:
        x = args[0] if height >= rows.size else resize_across(args[0])  # the smaller size in between
        part = slice(cut.first, cut.stop)
        # The weights in the type of x: bilinear weights of halves and quarters are exact in all of them.
        w = weight[part].to(x.device, x.dtype)[:, None]
        upper, lower = (gather(x, (i[part] - cut.low).to(x.device), 2) for i in (low, high))
        x = torch.lerp(upper, lower, w)
        return x if height < rows.size else resize_across(x)

    return Local(Rows(2, height), need, run)


def _between(size: int, result: int, align: bool, factor: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """For each row of a resized image, the rows that it lies between and how far it is from the first.

    In float32, as PyTorch's kernels compute it: on a large image, another rounding would show.
    """
    at = torch.arange(result, dtype=torch.float32)
    if align:
        at = at * torch.tensor((size - 1) / (result - 1) if result > 1 else 0.0, dtype=torch.float32)
    else:
        scale = 1 / factor if factor else size / result
        at = ((at + 0.5) * torch.tensor(scale, dtype=torch.float32) - 0.5).clamp(min=0)
    low = at.long().clamp(max=size - 1)
    return low, (low + 1).clamp(max=size - 1), (at - low).clamp(0, 1)


# Beyond the edges


@rule(aten.constant_pad_nd)
def _constant_pad(node: Node) -> Local:
    rows, shape = node.rows, node.shape()
    pads: list[int] = [int(p) for p in node.args[1]]
    value: Any = node.argument(2, 0)
    place = 2 * (len(shape) - 1 - rows.dim)
    above = pads[place] if place < len(pads) else 0
    unit = 1 if any(pads[place : place + 2]) else rows.unit

    def run(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> Tensor:
        own = list(pads)
        if place < len(pads):
            own[place] = max(0, above - cut.first)
            own[place + 1] = cut.stop - cut.first - own[place] - (cut.high - cut.low)
        return F.pad(args[0], own, value=value)

    return Local(Rows(rows.dim, shape[rows.dim], unit), lambda first, stop: (first - above, stop - above), run)


@rule(aten.replication_pad2d, aten.reflection_pad2d)
def _edge_pad(node: Node) -> Local:
    rows = _image_rows(node)
    left, right, above, _ = node.args[1]
    at = torch.arange(node.shape()[2]) - above
    replicated = node.target.overloadpacket is aten.replication_pad2d
    index = at.clamp(0, rows.size - 1) if replicated else reflected(at, rows.size)
    mode = "replicate" if replicated else "reflect"
    return _gathered(index, 2, lambda x: F.pad(x, (left, right, 0, 0), mode=mode))


@rule(aten.index_select)
def _index_select(node: Node) -> Local:
    rows, dim, index = node.rows, node.args[1], node.constant(node.args[2])
    if dim % len(node.shape()) != rows.dim:
        return Local(rows, same, lambda args, kwargs, cut: gather(args[0], args[2], dim))
    check(index is not None)
    return _gathered(index.cpu(), rows.dim, lambda x: x)


def _gathered(index: Tensor, dim: int, then: Callable[[Tensor], Tensor]) -> Local:
    """A result whose rows are given ones of the input, mostly in their order."""
    at = index.tolist()
    lowest, highest = (list(itertools.accumulate(at, extreme)) for extreme in (min, max))

    def need(first: int, stop: int) -> Range:
        if first == 0 < stop:  # a schedule asks for many of these
            return lowest[stop - 1], highest[stop - 1] + 1
        return min(at[first:stop]), max(at[first:stop]) + 1

    def run(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> Tensor:
        part = index[cut.first : cut.stop] - cut.low
        x = args[0]
        plain = len(part) == x.shape[dim] and bool((part == torch.arange(len(part))).all())
        return then(x if plain else gather(x, part.to(x.device), dim))

    return Local(Rows(dim, len(index)), need, run)
