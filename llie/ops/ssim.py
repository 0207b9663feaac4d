"""Structural similarity as a differentiable map."""

from __future__ import annotations

import torch
from torch import Tensor

from llie.ops.filters import separable_filter


def ssim_map(pred: Tensor, target: Tensor, window: Tensor, padding: int = 0, data_range: float = 1.0) -> Tensor:
    """SSIM of every pixel and channel (Wang et al., IEEE TIP 2004).

    Args:
        pred: (..., H, W); leading dimensions broadcast with those of `target`.
        target: (..., H, W).
        window: (n,) taps of the separable, normalised window.
        padding: zeros around the maps; 0 keeps only pixels whose window is inside (MATLAB), n // 2 keeps the size.
        data_range: difference between white and black.

    Returns:
        (..., H', W'), at most 1.
    """
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    # Only the sum of the variances is needed, so three blurs per prediction and one per target are enough.
    maps = [pred, target, pred * target, pred**2 + target**2]
    flat = torch.cat([each.reshape(-1, *each.shape[-2:]) for each in maps])
    blurred = separable_filter(flat, window, padding).split([each.shape[:-2].numel() for each in maps])
    mean_p, mean_t, mean_pt, mean_squares = (
        blur.reshape(*each.shape[:-2], *blur.shape[-2:]) for blur, each in zip(blurred, maps, strict=True)
    )
    product, squares = mean_p * mean_t, mean_p**2 + mean_t**2
    luminance = (2 * product + c1) / (squares + c1)
    structure = (2 * (mean_pt - product) + c2) / (mean_squares - squares + c2)
    return luminance * structure
