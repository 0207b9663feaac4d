"""Antialiased Lanczos reduction of 8-bit images, equal to Pillow's in every pixel, in batches and on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from llie.ops.constants import remembered
from llie.ops.exporting import exporting

_PRECISION = 22  # fractional bits of a weight
_TOGETHER = 64  # positions of the result computed by one product


def lanczos8(image: Tensor, height: int, width: int) -> Tensor:
    """Reduce 8-bit images as `PIL.Image.resize((width, height), LANCZOS)` does.

    Args:
        image: (..., H, W), float64, whole numbers in [0, 255].
        height: of the result, less than H.
        width: of the result, less than W.

    Returns:
        (..., height, width), float64, whole numbers in [0, 255].
    """
    return _reduced(_reduced(image, width).transpose(-2, -1), height).transpose(-2, -1)


def _reduced(image: Tensor, size: int) -> Tensor:
    """Reduce the last dimension. All sums are of whole numbers, and so exact in any order."""
    before = image.shape[-1]
    if exporting():  # the size may be any
        return _rounded(image @ _weights(before, size, image.device).T)
    parts = []
    for first in range(0, size, _TOGETHER):
        stop = min(first + _TOGETHER, size)
        low = max(0, int((first - 3) * before / size) - 1)
        high = min(before, int((stop + 3) * before / size) + 2)
        weights = _weights(before, size, image.device, (first, stop), (low, high))
        parts.append(_rounded(image[..., low:high] @ weights.T))
    return torch.cat(parts, -1)


def _rounded(total: Tensor) -> Tensor:
    return ((total + 2 ** (_PRECISION - 1)) / 2**_PRECISION).floor().clamp(0, 255)


@remembered
def _weights(
    size: int,
    reduced: int,
    device: torch.device,
    rows: tuple[int | None, int | None] = (None, None),
    columns: tuple[int | None, int | None] = (None, None),
) -> Tensor:
    """Matrix (reduced, size) of Lanczos-3 weights in fixed point: whole numbers, exact in float64.

    `rows` and `columns` choose a part of it; all weights of its rows that are not zero must be in these columns.
    """
    position = torch.arange(size, device=device)
    index = torch.arange(reduced, dtype=torch.float64, device=device)[:, None]
    scale = (position[-1:] + 1) / (index[-1:] + 1)
    position, index = position[slice(*columns)], index[slice(*rows)]
    centre = (index + 0.5) * scale
    first, last = (centre - 3 * scale + 0.5).long().clamp(min=0), (centre + 3 * scale + 0.5).long()
    distance = (position - centre + 0.5) / scale
    weights = torch.where(distance.abs() < 3, distance.sinc() * (distance / 3).sinc(), 0)
    weights = weights * ((position >= first) & (position < last))
    weights = weights / weights.sum(1, keepdim=True) * 2**_PRECISION
    return weights.sign() * (weights.abs() + 0.5).floor()
