"""Bilinear resizing by two, together with the convolution before or after it, with fewer multiplications."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.ops import resizing_kernel
from llie.ops.parts import WHOLE, Ends, local
from llie.ops.tiles import Joined, in_parts, in_tiles, tiles
from llie.ops.winograd import convolve_3x3


def conv_and_halve(x: Tensor, weight: Tensor, prelu: nn.PReLU | None = None) -> Tensor:
    """A 3x3 convolution, then bilinear resizing to half the size with aligned corners; then a PReLU, if wanted.

    For inference on CPUs, resizing comes first: both are linear, and a convolution is a sum over the shifts of its
    kernel, so that it can act on nine resized maps, one for each shift of the image. This is exact. Row i of a
    resized map lies between rows 2 i and 2 i + 1 of the map.

    Args:
        x: (B, C, H, W).
        weight: (C', C, 3, 3); zeros are padded, and there is no bias.
        prelu: with one parameter.

    Returns:
        (B, C', H // 2, W // 2).
    """
    height, width = x.shape[2:]
    usable = x.device.type == "cpu" and (x.dtype in (torch.float32, torch.float64) or resizing_kernel.works(x))
    if not in_parts(x) or not usable or height % 2 or width % 2:
        result = _halved_after(x, weight)
        return result if prelu is None else prelu(result)
    first = functools.partial(_halved_first, height, prelu)
    return local(first, x, weight, like=_halved_after, halo=1)


def double_and_merge(x: Tensor, skip: Tensor, weight: Tensor, activate: Callable[[Tensor], Tensor]) -> Tensor:
    """Bilinear resizing to twice the size with aligned corners, plus a convolution of another map; then activation.

    Args:
        x: (B, C', H, W).
        skip: the other map, (B, C, 2 H, 2 W), or, for a wider kernel, 2 W + k - 1: nothing is padded.
        weight: of the convolution, (C', C, 1, k).
        activate: (B, C', 2 H, 2 W) -> the same size; it sees one pixel at a time.
    """

    def merged(x: Tensor, skip: Tensor, weight: Tensor) -> Tensor:
        return x + F.conv2d(skip, weight)

    if merges_in_c(x) and x.dtype == skip.dtype == weight.dtype:
        prelu = activate if isinstance(activate, nn.PReLU) and activate.num_parameters == 1 else None
        height = x.shape[2]

        def in_c(x: Tensor, skip: Tensor, weight: Tensor, ends: Ends = WHOLE) -> Tensor:
            slope = 1 if prelu is None else prelu.weight.item()
            return resizing_kernel.doubled(x, skip, weight, slope, height, ends)

        result = local(in_c, x, skip, weight, like=lambda x, *others: merged(_doubled(x), *others), halo=1)
        return result if prelu is not None else in_tiles(activate, result, channels=2 * result.shape[1])
    if weight.shape[3] > 1:
        return activate(merged(_doubled(x), skip, weight))
    return in_tiles(lambda *maps: activate(merged(*maps)), _doubled(x), skip, also=[weight], channels=2 * x.shape[1])


def merges_in_c(x: Tensor) -> bool:
    """Whether `double_and_merge` takes a map through all steps at once, a row at a time: for inference on CPUs."""
    return in_parts(x) and resizing_kernel.works(x) and x.dtype == torch.float32


def with_rows_as_channels(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A map and a kernel of one row, (C', 3 C, 1, 3), with which it gives the convolution of x by a kernel of three.

    Args:
        x: (B, C, H, W); nothing is padded, so that the result has two rows less, and two columns.
        weight: (C', C, 3, 3).
    """
    rows = [x[:, :, i : x.shape[2] - 2 + i] for i in range(3)]
    return torch.cat(rows, dim=1), weight.transpose(1, 2).flatten(1, 2)[:, :, None]


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def _halved_after(x: Tensor, weight: Tensor) -> Tensor:
    return F.interpolate(convolve_3x3(x, weight), scale_factor=0.5, mode="bilinear", align_corners=True)


def _halved_first(height: int, prelu: nn.PReLU | None, x: Tensor, weight: Tensor, ends: Ends = WHOLE) -> Tensor:
    """The convolution of nine resized maps: of some rows, of so many, which begin with an even one."""
    exact = torch.promote_types(x.dtype, torch.float32)
    down, across = _between(height, exact)[:, None], _between(x.shape[3], exact)
    rows = ends.without(1, x.shape[2] // 2)  # of the result; a row of it belongs to two of x
    if resizing_kernel.works(x):
        slope = 1 if prelu is None else prelu.weight.item()
        return resizing_kernel.halved(x, weight, down[ends.first // 2 :], across, rows, slope)
    kernel = weight.permute(0, 2, 3, 1).flatten(1)[:, :, None, None]  # shifts as channels
    result = Joined(rows, len(across))
    for tile in tiles(x[:, :, ::2, ::2], 9 * x.shape[1], rows=rows):
        (top, bottom), (left, right) = ((2 * span.start - 1, 2 * span.stop + 1) for span in tile.inner)
        part = x[:, :, max(top, 0) : bottom, max(left, 0) : right]
        part = F.pad(part, (int(left < 0), int(right > x.shape[3]), int(top < 0), int(bottom > x.shape[2])))
        first = ends.first // 2
        weights = down[first + tile.inner[0].start : first + tile.inner[0].stop]
        lines = [torch.lerp(*_pairs(part, 2, shift), weights) for shift in range(3)]
        shape = (len(x), kernel.shape[1], part.shape[2] // 2 - 1, part.shape[3] // 2 - 1)
        taps = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
        for tap, (line, shift) in zip(taps.chunk(9, dim=1), itertools.product(lines, range(3)), strict=True):
            torch.lerp(*_pairs(line, 3, shift), across[tile.inner[1]], out=tap)
        result.add(tile, F.conv2d(taps, kernel))
    return result.map if prelu is None else prelu(result.map)


def _pairs(x: Tensor, dim: int, shift: int) -> tuple[Tensor, Tensor]:
    """The even and the odd positions along an axis with a margin of one, shifted by up to 2."""
    x = x.narrow(dim, shift, x.shape[dim] - 2).unflatten(dim, (-1, 2))
    return x.select(dim + 1, 0), x.select(dim + 1, 1)


def _between(size: int, dtype: torch.dtype) -> Tensor:
    """For each position of the resized axis, how far from the even to the odd position it lies: 0 to 1.

    Computed as by PyTorch, in the type of the map: on a large image, another rounding would show.
    """
    index = torch.arange(size // 2, dtype=dtype)
    return index * torch.tensor((size - 1) / max(1, size // 2 - 1), dtype=dtype) - 2 * index
