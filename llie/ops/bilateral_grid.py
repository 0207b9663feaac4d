"""Bilateral grids: decide on a thumbnail, apply at full resolution (Chen et al., SIGGRAPH 2007; Gharbi et al., 2017).

A grid holds values over (luma, height, width) at a coarse resolution. Every pixel reads it, trilinearly, at its own
position and brightness, so a coarse grid still follows the edges of the image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from llie.ops.constants import constant
from llie.ops.exporting import exporting

DARKEST = 1 / 255  # the luma scale is logarithmic above one 8-bit level and linear below, where values are noise


def log_scale(x: Tensor) -> Tensor:
    """Values in [0, 1] on a logarithmic scale from 0 to 1, so that a stop is a step of nearly constant size."""
    return torch.log1p(x.clamp(min=0) / DARKEST) / math.log1p(1 / DARKEST)


def hat_weights(positions: Tensor, size: int) -> Tensor:
    """Weights of linear interpolation between `size` grid points at each position.

    Args:
        positions: (...) in [0, 1]; the grid points are at (i + 1/2) / size; beyond the outer ones the grid is constant.
        size: number of grid points.

    Returns:
        (..., size), with a sum of 1.
    """
    points = (positions * size - 0.5).clamp(0, size - 1)
    distance = points[..., None] - torch.arange(size, device=positions.device, dtype=positions.dtype)
    return (1 - distance.abs()).clamp(min=0)


def area_weights(size: int, bins: int, device: torch.device | None = None) -> Tensor:
    """Weights of area averaging: the share of each of `size` pixels in each of `bins` equal parts of the line.

    Returns:
        (bins, size), with a sum of 1 over the pixels.
    """
    pixels = torch.arange(size, device=device, dtype=torch.float64)
    total = pixels[-1:] + 1
    edges = torch.arange(bins + 1, device=device, dtype=torch.float64) * (total / bins)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp(min=0) * (bins / total)).float()


def make_thumbnail(image: Tensor, side: int = 128, white: float = 1.0, rows: int = 256) -> Tensor:
    """A square thumbnail of a whole image; area averages recover what noise and rounding hide in single pixels.

    Args:
        image: (B, 3, H, W) of any type and size; the aspect ratio is not kept.
        side: of the thumbnail, in pixels.
        white: value of the image that becomes 1.
        rows: number of rows that are converted to float32 at a time.

    Returns:
        (B, 3, side, side), float32.
    """
    height, width = image.shape[-2:]
    down, across = area_weights(height, side, image.device), area_weights(width, side, image.device).T
    if exporting():
        return down @ (image.float() @ across) / white
    bands = range(0, height, rows)
    return sum(down[:, i : i + rows] @ (image[..., i : i + rows, :].float() @ across) for i in bands) / white  # type: ignore[return-value]


def slice_grid(grid: Tensor, x: Tensor, region: Tensor | None = None) -> Tensor:
    """Read a grid at every pixel by position and brightness.

    Args:
        grid: (B, C, luma, rows, columns).
        x: (B, 3, H, W) in [0, 1], even sides; its largest channel, smoothed over a few pixels to keep its noise out of
            the result, is the luma.
        region: (B, 4), top, bottom, left and right of x in the image that the grid was made for, in [0, 1]; the whole
            image when None.

    Returns:
        (B, C, H, W).
    """
    luma = log_scale(F.avg_pool2d(x, 2).amax(1, keepdim=True))
    luma = F.avg_pool2d(F.pad(luma, (1, 1, 1, 1), mode="replicate"), 3, stride=1)[:, 0]
    edges = constant([[0.0, 1.0, 0.0, 1.0]], x) if region is None else region.to(x)
    rows = hat_weights(_centres(luma.shape[-2], edges[:, 0:2]), grid.shape[-2])
    columns = hat_weights(_centres(luma.shape[-1], edges[:, 2:4]), grid.shape[-1])
    placed = rows[:, None, None] @ (grid @ columns[:, None, None].mT)  # (B, C, luma, H/2, W/2)
    at_luma = hat_weights(luma, grid.shape[2]).movedim(-1, 1)
    values = (placed * at_luma[:, None]).sum(2)
    return F.interpolate(values, scale_factor=2, mode="bilinear")


def _centres(count: int, ends: Tensor) -> Tensor:
    """Centres of `count` equal parts between the two ends (B, 2): (B, count)."""
    steps = (torch.arange(count, device=ends.device, dtype=ends.dtype) + 0.5) / count
    return torch.lerp(ends[:, :1], ends[:, 1:], steps)
