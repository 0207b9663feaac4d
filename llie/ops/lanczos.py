"""Antialiased Lanczos reduction of 8-bit images, equal to Pillow's in every pixel, in batches and on any device."""

from __future__ import annotations

import torch
from torch import Tensor

_PRECISION = 22  # fractional bits of a weight


def lanczos8(image: Tensor, height: int, width: int) -> Tensor:
    """Reduce 8-bit images as `PIL.Image.resize((width, height), LANCZOS)` does.

    Args:
        image: (..., H, W), float64, whole numbers in [0, 255].
        height: of the result, less than H.
        width: of the result, less than W.

    Returns:
        (..., height, width), float64, whole numbers in [0, 255].
    """
    image = _rounded(image @ _weights(image.shape[-1], width, image.device).T)
    return _rounded(_weights(image.shape[-2], height, image.device) @ image)


def _rounded(total: Tensor) -> Tensor:
    return ((total + 2 ** (_PRECISION - 1)) / 2**_PRECISION).floor().clamp(0, 255)


def _weights(size: int, reduced: int, device: torch.device) -> Tensor:
    """Matrix (reduced, size) of Lanczos-3 weights in fixed point: whole numbers, exact in float64."""
    position = torch.arange(size, device=device)
    index = torch.arange(reduced, dtype=torch.float64, device=device)[:, None]
    scale = (position[-1:] + 1) / (index[-1:] + 1)
    centre = (index + 0.5) * scale
    first, last = (centre - 3 * scale + 0.5).long().clamp(min=0), (centre + 3 * scale + 0.5).long()
    distance = (position - centre + 0.5) / scale
    weights = torch.where(distance.abs() < 3, distance.sinc() * (distance / 3).sinc(), 0)
    weights = weights * ((position >= first) & (position < last))
    weights = weights / weights.sum(1, keepdim=True) * 2**_PRECISION
    return weights.sign() * (weights.abs() + 0.5).floor()
