"""A convolution followed by resizing to half the size, with a quarter of the multiplications."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from llie.ops.bands import Joined, bands, fast
from llie.ops.winograd import convolve_3x3


def conv_and_halve(x: Tensor, weight: Tensor) -> Tensor:
    """A 3x3 convolution, then bilinear resizing to half the size with aligned corners.

    For inference on CPUs, resizing comes first: both are linear, and a convolution is a sum over the shifts of its
    kernel, so that it can act on nine resized maps, one for each shift of the image. This is exact. Row i of a
    resized map lies between rows 2 i and 2 i + 1 of the map.

    Args:
        x: (B, C, H, W).
        weight: (C', C, 3, 3); zeros are padded, and there is no bias.

    Returns:
        (B, C', H // 2, W // 2).
    """
    height, width = x.shape[2:]
    if not fast(x) or height % 2 or width % 2 or x.dtype not in (torch.float32, torch.float64):
        return F.interpolate(convolve_3x3(x, weight), scale_factor=0.5, mode="bilinear", align_corners=True)
    kernel = weight.permute(0, 2, 3, 1).flatten(1)[:, :, None, None]  # shifts as channels
    down, across = _between(height, x.dtype)[:, None], _between(width, x.dtype)
    result = Joined(height // 2)
    for band in bands(x[:, :, ::2, ::2], 9 * x.shape[1]):
        first, stop, _ = (band.outer or slice(height // 2)).indices(height // 2)
        low, high = 2 * first - 1, 2 * stop + 1
        part = F.pad(x[:, :, max(low, 0) : high], (1, 1, int(low < 0), int(high > height)))
        lines = [torch.lerp(*_pairs(part, 2, shift), down[first:stop]) for shift in range(3)]
        shape = (len(x), kernel.shape[1], stop - first, width // 2)
        taps = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
        for tap, (line, shift) in zip(taps.chunk(9, dim=1), itertools.product(lines, range(3)), strict=True):
            torch.lerp(*_pairs(line, 3, shift), across, out=tap)
        result.add(F.conv2d(taps, kernel))
    return result.map


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
