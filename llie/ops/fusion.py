"""Fusing layers for inference: one explicit step, `fuse(network)`, for networks whose modules have a faster form.

Such modules derive from `Fusable`. One of them is `ConvChain`: convolutions without an activation between them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.errors import UserError
from llie.ops.linear import Linear
from llie.ops.long_rows import RowsAsChannels
from llie.ops.parts import WHOLE, Ends, local, recording
from llie.ops.winograd import Conv3x3, version

Network = TypeVar("Network", bound=nn.Module)
Function = Callable[..., Tensor]


def fuse(network: Network) -> Network:
    """Prepare a network for inference: every `Fusable` in it switches to its faster form.

    Kernels of Winograd's convolutions are transformed once; in memory, they take four times as much as the weights.
    Linear layers pack theirs once, in as much memory again.
    Parameters, modules and the state dict do not change. The faster form is used only in evaluation mode without
    gradients, and only while the parameters that it was made from keep their values and their device: call `fuse`
    again after training, loading or moving. (A write to a parameter's `.data` is the only change that is not noticed.)

    Args:
        network: changed in place.

    Returns:
        The same network.
    """
    for module in network.modules():
        if isinstance(module, (Fusable, Conv3x3, Linear)):
            module.fuse()
    return network


class Fusable(nn.Module):
    """A module with a second, faster form for inference.

    Subclasses implement `plain`, the computation, and `fused`, which returns a function that computes the same from
    copies of the parameters; `halo`, too, where the module is local.
    """

    def plain(self, x: Tensor) -> Tensor:
        """Compute the module's result."""
        raise NotImplementedError  # every layer has its own

    def fused(self) -> Function:
        """Return a faster function with the same result; it is called without gradients.

        Its second argument is for strips of rows, see `llie.ops.parts.local`.
        """
        raise NotImplementedError  # every layer has its own

    def halo(self) -> int | None:
        """On how many pixels around its own a result depends, at most; None if it may depend on all."""
        return None

    @torch.no_grad()
    def fuse(self) -> None:
        """Make the faster form; `llie.ops.fusion.fuse` does it for whole networks."""
        # Stored outside the module's attributes, so that parameters, buffers, copies and checkpoints do not contain it.
        object.__setattr__(self, "_fast", (self.fused(), self._state()))

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        """`plain`, or its faster form where there is a valid one."""
        fast, made_of = self.__dict__.get("_fast", (None, None))
        if fast is None or self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.plain(x, *more)  # a compiled or exported graph must stay valid when parameters change
        return self.run_fused(fast, x, *more) if made_of == self._state() else self.plain(x, *more)

    def run_fused(self, fast: Function, x: Tensor) -> Tensor:
        """Compute the result with what `fused` returned."""
        return local(fast, x, like=self.plain, halo=self.halo())

    def _state(self) -> list[tuple[int, int]]:
        """A value that changes whenever a parameter is written to, replaced or moved."""
        return [version(parameter) for parameter in self.parameters()]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_fast"}


class ConvChain(Fusable, nn.Sequential):
    """Convolutions without an activation between them; fused, they are a single convolution.

    The single convolution has the composed kernel. It is exact where only the first layer reads padding; the few rows
    and columns at the edges where later layers read theirs are computed by the layers themselves.

    Args:
        *convs: with square kernels and zero padding, without groups or dilation.

    Raises:
        UserError: a layer is something else.
    """

    def __init__(self, *convs: nn.Conv2d):
        for conv in convs:
            square = all(len(set(pair)) == 1 for pair in (conv.kernel_size, conv.stride, conv.padding))
            if not square or conv.groups != 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros":
                raise UserError(f"ConvChain: {conv} has groups or dilation, is not square, or is not padded with zeros")
        super().__init__(*convs)

    def plain(self, x: Tensor) -> Tensor:
        """All layers in turn."""
        return nn.Sequential.forward(self, x)

    def halo(self) -> int:
        """What the kernel of the single convolution reaches on either side."""
        kernel, _, padding = _spans(list(self))[0]  # type: ignore[arg-type]
        return max(padding, kernel - 1 - padding)

    def fused(self) -> Function:
        """One convolution, and the layers themselves along the edges."""
        convs: list[Any] = list(self)
        weight, bias = composed_kernel(convs)
        whole, *later = _spans(convs)
        inner: Any = functools.partial(_strip_conv, weight, bias, whole)
        if whole.stride == 1 and weight.shape[0] * whole.kernel <= weight.shape[1]:
            inner = RowsAsChannels(weight, bias, whole.padding)

        def run(x: Tensor, *terms: Tensor, ends: Ends = WHOLE) -> Tensor:
            edges = {dim: _edges(_sizes(x.shape[dim], convs), later) for dim in (2, 3)}
            before, after, size = edges[2]
            edges[2] = before if ends.top else 0, after if ends.bottom else size, size
            rows = ends.without(self.halo() // whole.stride, size)  # of the result
            if any(before >= after for before, after, _ in edges.values()):
                return self.plain(x)[:, :, rows]
            out = inner.add(*terms, ends) if terms else inner(x, ends)
            for dim, (before, after, size) in edges.items():
                for first, stop in ((0, before), (after, size)):
                    if dim == 2:  # those of the rows that were asked for
                        first, stop = max(first, rows.start), min(stop, rows.stop)
                    if first >= stop:
                        continue
                    slab = _slab(x, convs, dim, first, stop)
                    if dim == 3:
                        out[..., first:stop] = slab[:, :, rows]
                    else:
                        out.narrow(2, first - rows.start, stop - first).copy_(slab)
            return out

        run.terms = getattr(inner, "terms", None)  # type: ignore[attr-defined]
        return run

    def run_fused(self, fast: Any, x: Tensor) -> Tensor:
        """See the base class."""
        if fast.terms is None or not recording():
            return super().run_fused(fast, x)
        # What each row of the image adds to others is computed once, and waits for these.
        terms = local(fast.terms, x, like=fast.terms, halo=0)
        return local(fast, x, terms, like=lambda x, terms: self.plain(x), halo=self.halo())


def _strip_conv(weight: Tensor, bias: Tensor, span: _Span, x: Tensor, ends: Ends) -> Tensor:
    """A convolution padded with zeros; at the top and at the bottom only if they are those of the image."""
    rows = span.padding if ends == WHOLE else 0
    x = x if ends == WHOLE else ends.padded(x, span.padding)
    return F.conv2d(x, weight, bias, span.stride, (rows, span.padding))


class _Span(NamedTuple):
    """The convolution that equals the last few layers of a chain."""

    kernel: int
    stride: int
    padding: int


def _spans(convs: Sequence[nn.Conv2d]) -> list[_Span]:
    """The span of all layers, of all but the first, ..., of the last alone."""
    spans = [_Span(1, 1, 0)]
    for conv in reversed(convs):
        k, s, p, last = *_numbers(conv), spans[0]
        spans.insert(0, _Span(k + s * (last.kernel - 1), s * last.stride, p + s * last.padding))
    return spans[:-1]


def _sizes(size: int, convs: Sequence[nn.Conv2d]) -> list[int]:
    """Sizes of the input and of every layer's output, along one axis."""
    sizes = [size]
    for k, s, p in map(_numbers, convs):
        sizes.append((sizes[-1] + 2 * p - k) // s + 1)
    return sizes


def _edges(sizes: Sequence[int], later: Sequence[_Span]) -> tuple[int, int, int]:
    """Range of outputs (first, end) that read no padding between layers, and the number of all outputs."""
    *between, count = sizes[1:]
    before, after = 0, count
    for size, span in zip(between, later, strict=True):
        before = max(before, -(-span.padding // span.stride))
        after = min(after, (size - span.kernel + span.padding) // span.stride + 1)
    # Never a single one: at width 1, oneDNN's strided half-precision convolutions return garbage on CPUs with AMX.
    return 2 if before == 1 else before, count - 2 if after == count - 1 else after, count


def _slab(x: Tensor, convs: Sequence[nn.Conv2d], dim: int, first: int, stop: int) -> Tensor:
    """Outputs `first` to `stop` along `dim`, computed by the layers themselves, each on as little as possible."""
    if not convs:
        return x.narrow(dim, first, stop - first)
    *earlier, conv = convs
    k, s, p = _numbers(conv)
    size = _sizes(x.shape[dim], earlier)[-1]
    low, high = first * s - p, (stop - 1) * s - p + k
    y = _slab(x, earlier, dim, max(low, 0), min(high, size))
    zeros, across = (max(-low, 0), max(high - size, 0)), (p, p)
    y = F.pad(y, (*across, *zeros) if dim == 2 else (*zeros, *across))
    return F.conv2d(y, conv.weight, conv.bias, s)


def _numbers(conv: nn.Conv2d) -> tuple[int, int, int]:
    """Kernel size, stride and padding."""
    return conv.kernel_size[0], conv.stride[0], int(conv.padding[0])


def composed_kernel(convs: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor]:
    """Kernel and bias of the single convolution that equals these convolutions in turn, away from the edges.

    Computed in float64, returned in the type of the layers.
    """
    weight, bias, stride = convs[0].weight.double(), _bias(convs[0]), convs[0].stride[0]
    for conv in convs[1:]:
        outer = conv.weight.double()
        bias = outer.sum((2, 3)) @ bias + _bias(conv)
        # Each tap of the outer kernel places a copy of the inner one, `stride` apart.
        weight = F.conv_transpose2d(outer, weight, stride=stride)
        stride *= conv.stride[0]
    return weight.to(convs[0].weight.dtype), bias.to(convs[0].weight.dtype)


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels).double() if conv.bias is None else conv.bias.double()
