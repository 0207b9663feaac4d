"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3) in matrix products, for CPUs.

Source: A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016. A tile of 4x4 results
needs 6x6 values of the image. Both the tile and the kernel are evaluated as polynomials at six points along each axis;
there, a convolution is a product: 36 products instead of 144 for each pair of channels. Over all channels and tiles,
these are 36 matrix products.

The points are 0, 2/3, -2/3, 3/2, -3/2 and infinity, whose rounding error is small, about that of the direct form in
gradients and four times that in results; and with p, 1/p is one of them, too. So the flipped kernel, which gradients
need, has the same 36 matrices in another order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from llie.ops.parts import as_graph

TILE, REACH = 4, 6  # sides of a tile of results, and of the values that it depends on
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)  # and infinity
INVERSES = (5, 3, 4, 1, 2, 0)  # the position of 1 / p
TILES = 96  # at a time, about: so many stay in the cache, and make the matrices large enough
LEAST_CHANNELS, LEAST_TILES = 64, 16  # with fewer, the direct form is as fast


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether `winograd` is faster than `F.conv2d(x, weight, padding=1)`, and may replace it.

    It may not in half precision, or where operations become a graph, which should contain the plain ones.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= LEAST_CHANNELS
        and len(x) * (x.shape[2] // TILE) * (x.shape[3] // TILE) >= LEAST_TILES
        and not torch.is_autocast_enabled("cpu")
        and not as_graph()
    )


def transformed(weight: Tensor) -> Tensor:
    """A kernel (C', C, 3, 3) at the 6x6 points, (36, C, C'): what `winograd` multiplies by."""
    kernel = _matrices(torch.float64).kernel @ weight.detach().double().permute(2, 3, 1, 0).reshape(9, -1)
    return kernel.to(weight.dtype).view(-1, weight.shape[1], weight.shape[0])


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None, kernel: Tensor | None = None) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=1)`, correct to about 2e-6 of the largest value in float32.

    Args:
        x: (B, C, H, W); channels last is best.
        weight: (C', C, 3, 3).
        bias: (C',).
        kernel: `transformed(weight)`, if it is known.

    Returns:
        (B, C', H, W), channels last.
    """
    result: Tensor = _Winograd.apply(x, weight, bias, transformed(weight) if kernel is None else kernel)
    return result


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Tensor) -> Tensor:
        # A frozen kernel needs no copy of the image.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight, kernel)
        return _convolve(x, kernel, bias, _matrices(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, kernel = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            if torch.is_grad_enabled():  # this gradient has a gradient
                of_x = winograd(grad, weight.flip(2, 3).transpose(0, 1))
            else:
                of_x = _convolve(grad, kernel.transpose(1, 2), None, _matrices(grad.dtype).flipped())
        if ctx.needs_input_grad[1]:
            if torch.is_grad_enabled():
                of_weight = _plain_gradient(x, weight, grad)
            else:
                of_weight = _correlate(x, grad)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None


def _plain_gradient(x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """That of the kernel, by PyTorch, which knows its gradient."""
    sides, none, only_weight = (1, 1), (0, 0), (False, True, False)
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, sides, sides, sides, False, none, 1, only_weight
    )
    return found[1]


class _Matrices(NamedTuple):
    """The linear maps of the algorithm, for both axes at once.

    Attributes:
        image: (36, 36), from a tile's 6x6 values.
        kernel: (36, 9), from a 3x3 kernel.
        result: (16, 36), to 4x4 results.
    """

    image: Tensor
    kernel: Tensor
    result: Tensor

    def flipped(self) -> _Matrices:
        """Those for a kernel that is flipped along both axes, but given as it was before."""
        order = [REACH * i + j for i in INVERSES for j in INVERSES]
        return _Matrices(self.image[order], self.kernel[order], self.result[:, order])


@functools.cache
def _matrices(dtype: torch.dtype) -> _Matrices:
    # The kernel's values at the points; and the transpose of Lagrange's interpolation from values to coefficients.
    # Rows of the kernel's map are divided by |p|, so that p and 1 / p differ by the order of coefficients.
    kernel, image, result = (torch.zeros(REACH, n, dtype=torch.float64) for n in (3, REACH, TILE))
    for row, p in enumerate(POINTS):
        size = abs(p) or 1.0
        others = [q for q in POINTS if q != p]
        kernel[row] = torch.tensor([1.0, p, p**2], dtype=torch.float64) / size
        image[row, :-1] = _coefficients(others) * (size / math.prod(p - q for q in others))
        result[row] = torch.tensor([p**i for i in range(TILE)], dtype=torch.float64)
    kernel[-1, -1] = result[-1, -1] = 1
    image[-1] = _coefficients(POINTS)
    both = (torch.kron(each, each) for each in (image, kernel, result.T.contiguous()))
    return _Matrices(*(each.to(dtype) for each in both))


def _coefficients(roots: tuple[float, ...] | list[float]) -> Tensor:
    """Of the polynomial with these roots, the constant first."""
    found = torch.ones(1, dtype=torch.float64)
    for root in roots:
        found = F.pad(found, (1, 0)) - root * F.pad(found, (0, 1))
    return found


class _Tiles(NamedTuple):
    """Some images, and some rows of tiles in them: the first, and how many."""

    images: slice
    first: int
    rows: int


def _in_parts(x: Tensor) -> Iterator[_Tiles]:
    """All tiles of (B, C, H, W), about `TILES` at a time."""
    down, across = (-(-size // TILE) for size in x.shape[2:])
    images = max(1, TILES // (down * across))
    rows = min(down, max(1, TILES // across))
    rows = math.ceil(down / math.ceil(down / rows))
    for image in range(0, len(x), images):
        for first in range(0, down, rows):
            yield _Tiles(slice(image, min(image + images, len(x))), first, min(rows, down - first))


def _padded(x: Tensor, margin: int) -> Tensor:
    """(B, C, H, W) -> (B, H', W', C): with zeros around, and beyond, for whole tiles."""
    height, width = x.shape[2:]
    sides = (margin, margin - width % -TILE, margin, margin - height % -TILE)
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, *sides)).contiguous()


def _gather(padded: Tensor, part: _Tiles, side: int) -> Tensor:
    """The values of some tiles, (side * side, tiles * C), from (B, H', W', C)."""
    images = padded[part.images, TILE * part.first :]
    of_image, of_row, of_column, _ = padded.stride()
    across = padded.shape[2] // TILE
    shape = (side, side, len(images), part.rows, across, padded.shape[3])
    strides = (of_row, of_column, of_image, TILE * of_row, TILE * of_column, 1)
    return images.as_strided(shape, strides, images.storage_offset()).reshape(side * side, -1)


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, matrices: _Matrices) -> Tensor:
    """The convolution of (B, C, H, W) with a transformed kernel (36, C, C')."""
    batch, channels, height, width = x.shape
    outputs = kernel.shape[2]
    padded = _padded(x, 1)
    across = padded.shape[2] // TILE
    size = (batch, outputs, height, width)
    out = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    pixels = out.permute(0, 2, 3, 1)
    for part in _in_parts(x):
        tiles = torch.mm(matrices.image, _gather(padded, part, REACH)).view(REACH * REACH, -1, channels)
        results = torch.mm(matrices.result, torch.bmm(tiles, kernel).view(REACH * REACH, -1)).view(-1, outputs)
        if bias is not None:
            results += bias
        rows = pixels[part.images, TILE * part.first : TILE * (part.first + part.rows)]
        placed = results.view(TILE, TILE, len(rows), part.rows, across, outputs).permute(2, 3, 0, 4, 1, 5)
        if height % TILE == width % TILE == 0:
            rows.view(placed.shape).copy_(placed)
        else:
            whole = placed.reshape(len(rows), TILE * part.rows, TILE * across, outputs)
            rows.copy_(whole[:, : rows.shape[1], :width])
    return out


def _correlate(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the kernel (C', C, 3, 3), from the image and the gradient of the result."""
    matrices = _matrices(x.dtype)
    images, grads = _padded(x, 1), _padded(grad, 0)
    total = x.new_zeros(REACH * REACH, x.shape[1], grad.shape[1])
    for part in _in_parts(x):
        of_image = torch.mm(matrices.image, _gather(images, part, REACH)).view(REACH * REACH, -1, x.shape[1])
        of_grad = torch.mm(matrices.result.T, _gather(grads, part, TILE)).view(REACH * REACH, -1, grad.shape[1])
        total.baddbmm_(of_image.transpose(1, 2), of_grad)
    weight = torch.mm(matrices.kernel.T, total.view(REACH * REACH, -1)).view(3, 3, x.shape[1], grad.shape[1])
    return weight.permute(3, 2, 0, 1)
