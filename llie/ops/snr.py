"""Signal-to-noise maps of single images, as SNR-Aware (Xu et al., CVPR 2022) estimates them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llie.errors import UserError
from llie.ops.padding import reflected


def denoise(x: Tensor) -> Tensor:
    """The mean over 5x5 pixels around each pixel; the image is reflected at its edges.

    Rounded exactly like OpenCV's `blur` of float32 images on the 0..255 scale, which the published networks were
    trained with, because `snr_map` divides by differences that rounding dominates.

    Args:
        x: (B, C, H, W), float32 or float64, any size.

    Returns:
        The same shape.
    """
    height, width = x.shape[-2:]
    rows, columns = (reflected(torch.arange(-2, size + 2, device=x.device), size) for size in (height, width))
    sums = (255 * x).index_select(-2, rows).index_select(-1, columns).double()
    sums = sum((sums.narrow(-2, i, height) for i in range(1, 5)), sums.narrow(-2, 0, height))
    sums = sum((sums.narrow(-1, i, width) for i in range(1, 5)), sums.narrow(-1, 0, width))
    return (sums / 25).to(x.dtype) / 255


def snr_map(x: Tensor, quantile: float = 1.0) -> Tensor:
    """Ratio of the denoised grey image to the removed noise at each pixel, normalised from 0 (noise) to 1.

    Where the noise of a single pixel is zero, its ratio exceeds all others by orders of magnitude. So on photographs
    the published normalisation, by the maximum, gives a map near zero.

    Args:
        x: (B, 3, H, W) in [0, 1].
        quantile: the quantile of each image's ratios that becomes 1; larger ones are clipped. 1.0 is the maximum.

    Returns:
        (B, 1, H, W), float32 (float64 for float64 images).

    Raises:
        UserError: the images are not RGB.
    """
    if x.dim() != 4 or x.shape[1] != 3:
        raise UserError(f"snr_map: images must be (B, 3, H, W), not {tuple(x.shape)}")
    x = x if x.dtype == torch.float64 else x.float()
    dark, light = grey(x), grey(denoise(x))
    ratio = light / ((dark - light).abs() + 1e-4)
    flat = ratio.flatten(1)
    top = flat.amax(1) if quantile == 1 else flat.kthvalue(math.ceil(quantile * flat.shape[1]), dim=1).values
    return (ratio / (top.view(-1, 1, 1, 1) + 1e-4)).clamp(0, 1)


def grey(x: Tensor) -> Tensor:
    """RGB (B, 3, H, W) -> luma (B, 1, H, W); the order of additions matters to the rounding."""
    red, green, blue = x.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
