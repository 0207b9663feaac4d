"""The matrices of Winograd's convolutions, and the form that consists of matrix products alone; see `winograd.py`.

The points are 0, 2/3, -2/3, 3/2, -3/2 and infinity, whose rounding error is small.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE, REACH = 4, 6  # sides of a tile of results, and of the values that it depends on
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)  # and infinity
POINTS_OF_TILE = REACH * REACH
TILES = 96  # at a time, about: so many stay in the cache, and make the matrices large enough


class Output(NamedTuple):
    """Where some channels of a result go, and what happens to them before that.

    Attributes:
        to: (B, C, H, W), to be filled; channels last, or some channels, rows or columns of such a map.
        added: such a map of the same type, is added to them; it may be `to` itself, if C is a multiple of 8.
        relu: whether they get ReLU, too.
        slope: of negative values, if they get it.
    """

    to: Tensor
    added: Tensor | None = None
    relu: bool = False
    slope: float = 0.0


class Matrices(NamedTuple):
    """The linear maps of the algorithm, for both axes at once.

    Attributes:
        image: (36, 36), from a tile's 6x6 values.
        kernel: (36, 9), from a 3x3 kernel.
        result: (16, 36), to 4x4 results.
    """

    image: Tensor
    kernel: Tensor
    result: Tensor


@functools.cache
def matrices(dtype: torch.dtype) -> Matrices:
    """They are computed once for each type."""
    # The kernel's values at the points; and the transpose of Lagrange's interpolation from values to coefficients.
    # Rows of the kernel's map are divided by |p|, so that no point has much larger values than the others.
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
    return Matrices(*(each.to(dtype) for each in both))


def _coefficients(roots: tuple[float, ...] | list[float]) -> Tensor:
    """Of the polynomial with these roots, the constant first."""
    found = torch.ones(1, dtype=torch.float64)
    for root in roots:
        found = F.pad(found, (1, 0)) - root * F.pad(found, (0, 1))
    return found


def at_points(weight: Tensor, backward: bool) -> Tensor:
    """A kernel (C', C, 3, 3) at the 36 points, (36, C, C'); or the flipped one (36, C', C), for gradients."""
    weight = weight.detach()
    weight = weight.flip(2, 3) if backward else weight.transpose(0, 1)
    values = matrices(weight.dtype).kernel @ weight.permute(2, 3, 0, 1).reshape(9, -1)
    return values.view(POINTS_OF_TILE, *weight.shape[:2])


def convolve(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    outputs: Sequence[Output],
    above: int = 0,
    more: Tensor | None = None,
    replicated: bool = False,
) -> None:
    """Fill outputs, channels after channels, with the convolution of x (B, C, H, W) with a kernel at the points.

    x is channels last, and `more`, whose channels come after its own. Their row `above`, 0 or 1, belongs to the first
    row of the outputs, which may have fewer rows. Beyond the edges are zeros, or the outermost values.
    """
    x = x if more is None else torch.cat([x, more], dim=1)
    to, result = matrices(x.dtype), outputs[0].to
    channels, width = x.shape[1], result.shape[3]
    padded = _padded(x, 1, result.shape[2] + above, replicated)[:, above:]
    across = padded.shape[2] // TILE
    for part in _in_parts(result):
        tiles = torch.mm(to.image, _gather(padded, part, REACH)).view(POINTS_OF_TILE, -1, channels)
        results = torch.mm(to.result, torch.bmm(tiles, kernel).view(POINTS_OF_TILE, -1)).view(-1, kernel.shape[2])
        if bias is not None:
            results += bias
        placed = results.view(TILE, TILE, -1, part.rows, across, kernel.shape[2]).permute(2, 5, 3, 0, 4, 1)
        whole = placed.reshape(len(placed), -1, TILE * part.rows, TILE * across)[..., :width]
        for output, values in zip(outputs, whole.split([len(o.to[0]) for o in outputs], dim=1), strict=True):
            rows = output.to[part.images, :, TILE * part.first : TILE * (part.first + part.rows)]
            values = values[:, :, : rows.shape[2]]
            if output.added is not None:
                values = values + output.added[part.images, :, TILE * part.first : TILE * (part.first + part.rows)]
            rows.copy_(F.leaky_relu(values, output.slope) if output.relu else values)


def correlate(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of a kernel (C', C, 3, 3), from the image and the result's gradient; both are channels last."""
    to, height = matrices(x.dtype), x.shape[2]
    images, grads = _padded(x, 1, height), _padded(grad, 0, height)
    total = x.new_zeros(POINTS_OF_TILE, x.shape[1], grad.shape[1])
    for part in _in_parts(x):
        of_image = torch.mm(to.image, _gather(images, part, REACH)).view(POINTS_OF_TILE, -1, x.shape[1])
        of_grad = torch.mm(to.result.T, _gather(grads, part, TILE)).view(POINTS_OF_TILE, -1, grad.shape[1])
        total.baddbmm_(of_image.transpose(1, 2), of_grad)
    return from_points(total)


def from_points(total: Tensor) -> Tensor:
    """A kernel's gradient (C', C, 3, 3) from that of its values at the points (36, C, C'), by their transpose."""
    weight = torch.mm(matrices(total.dtype).kernel.T, total.view(POINTS_OF_TILE, -1))
    return weight.view(3, 3, *total.shape[1:]).permute(3, 2, 0, 1)


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


def _padded(x: Tensor, margin: int, height: int, replicated: bool = False) -> Tensor:
    """(B, C, H, W) -> (B, H', W', C): with a margin, and zeros beyond, for whole tiles of `height` rows at least.

    The margin has zeros, or the outermost values.
    """
    rows, columns = x.shape[2:]
    if replicated:
        x, margin = F.pad(x, (margin,) * 4, mode="replicate"), 0
    sides = (margin, margin - columns % -TILE, margin, margin + height - rows + TILE)
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, *sides)).contiguous()


def _gather(padded: Tensor, part: _Tiles, side: int) -> Tensor:
    """The values of some tiles, (side * side, tiles * C), from (B, H', W', C)."""
    images = padded[part.images, TILE * part.first :]
    of_image, of_row, of_column, _ = padded.stride()
    across = padded.shape[2] // TILE
    shape = (side, side, len(images), part.rows, across, padded.shape[3])
    strides = (of_row, of_column, of_image, TILE * of_row, TILE * of_column, 1)
    return images.as_strided(shape, strides, images.storage_offset()).reshape(side * side, -1)
