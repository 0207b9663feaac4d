"""Regions of similar haze, or similar light, from the dark channel of an image.

Sources: "Single Image Haze Removal Using Dark Channel Prior", TPAMI 2011; "Guided Image Filtering", TPAMI 2013;
the five classes of "Learning Hierarchical Dynamics with Spatial Adjacency for Image Enhancement", ACM MM 2022.

The transmission is `1 - 0.95/A * q` with the atmospheric light A and the filtered dark channel q. Here it is stretched
to [0, 1] over the image, so it does not depend on A, which is never estimated.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from llie.errors import UserError
from llie.ops.constants import constant, remembered
from llie.ops.lanczos import lanczos8
from llie.ops.padding import reflected
from llie.ops.parts import WHOLE, Ends, in_one_piece, local

# OpenCV's weights of grey in 15-bit fixed point, blue first: the published code takes RGB images for BGR.
_GREY = (3735, 19235, 9798)
_HALO = 12  # rows around four rows of the image on which a row of the reduced image depends


def dark_channel(image: Tensor, window: int = 15) -> Tensor:
    """The smallest value over all channels in a square window around each pixel.

    Args:
        image: (B, C, H, W), floating point.
        window: side of the square, odd; positions outside the image are ignored.

    Returns:
        (B, H, W).
    """
    darkest = -image.amin(1, keepdim=True)
    half = window // 2
    darkest = F.max_pool2d(darkest, (window, 1), 1, (half, 0))
    return -F.max_pool2d(darkest, (1, window), 1, (0, half))[:, 0]


def guided_filter(guide: Tensor, image: Tensor, window: int = 60, eps: float = 1e-4) -> Tensor:
    """Smooth `image` where `guide` is smooth, and keep its edges where the guide has edges.

    Args:
        guide: (..., H, W).
        image: (..., H, W).
        window: side of the square over which means are taken.
        eps: a variance of the guide that counts as smooth.

    Returns:
        (..., H, W).
    """
    rows, columns = (_box(side, window, guide.dtype, guide.device) for side in guide.shape[-2:])

    def mean(x: Tensor) -> Tensor:
        return rows @ x @ columns.T

    mean_guide, mean_image = mean(guide), mean(image)
    covariance = mean(guide * image) - mean_guide * mean_image
    slope = covariance / (mean(guide * guide) - mean_guide**2 + eps)
    return mean(slope) * guide + mean(mean_image - slope * mean_guide)


@torch.no_grad()
def haze_regions(image: Tensor, classes: int = 5, gamma: float | None = None) -> Tensor:
    """The class of transmission of every 4x4 block of an image; 0 is the clearest (the darkest).

    Equal in every pixel to the published chain of OpenCV and Pillow on 8-bit images. That chain divides by zero if the
    dark channel is constant; here all blocks of such an image are region 0.

    Args:
        image: (B, 3, H, W) or (3, H, W), RGB, in [0, 1] or uint8, before any normalisation.
        classes: number of regions: equal parts of the range of transmissions in the image.
        gamma: exponent that brightens the image first; 0.25 for low light as published.

    Returns:
        (B, H // 4, W // 4) or (H // 4, W // 4), int64 in 0 .. classes-1.

    Raises:
        UserError: the image is not RGB of at least 4x4 pixels, or `classes` is less than 1.
    """
    if classes < 1:
        raise UserError(f"haze_regions: classes must be at least 1, not {classes}")
    if image.dim() not in (3, 4) or image.shape[-3] != 3 or min(image.shape[-2:]) < 4:
        raise UserError(
            f"haze_regions: images must be (B, 3, H, W) or (3, H, W) of at least 4x4 pixels, not {tuple(image.shape)}"
        )
    with torch.autocast(image.device.type, enabled=False):
        batch = image if image.dim() == 4 else image[None]
        # In strips of rows, only the reduced image, a 16th of the pixels, must be seen whole.
        halo = _HALO if _even(batch) else None
        small = local(functools.partial(_rows_brightened, gamma), batch, like=lambda x: F.avg_pool2d(x, 4), halo=halo)
        size = (small.shape[0], *small.shape[2:])
        regions = in_one_piece(lambda x: _classes(x.double(), classes), small, shape=size, dtype=torch.long)
    return regions if image.dim() == 4 else regions[0]


def _rows_brightened(gamma: float | None, image: Tensor, ends: Ends = WHOLE) -> Tensor:
    """`_brightened` of some rows, exact in float32; for `ends` see `llie.ops.parts.local`."""
    small = _brightened(image, gamma).float()
    return small[:, :, ends.without(_HALO // 4, small.shape[2])]


def _even(image: Tensor) -> bool:
    """Whether every row and column of the reduced image is made of four: all have the same weights then."""
    return image.shape[-2] % 4 == 0 and image.shape[-1] % 4 == 0


def _classes(small: Tensor, classes: int) -> Tensor:
    q = _filtered(small)
    low, high = (end(q, (1, 2), keepdim=True) for end in (torch.amin, torch.amax))
    transmission = torch.where(high - low < 1e-8, 1.0, (high - q) / (high - low).clamp(min=1e-8))
    return (classes - 1 - (classes * transmission).floor().long()).clamp(0, classes - 1)


def filtered_dark_channel(image: Tensor, gamma: float | None = None) -> Tensor:
    """The dark channel of the reduced image, smoothed along its edges; `haze_regions` divides it into classes.

    Args:
        image: (B, 3, H, W), see `haze_regions`.
        gamma: see `haze_regions`.

    Returns:
        (B, H // 4, W // 4), float64: on dark photographs its whole range is a few 1e-5.
    """
    return _filtered(_brightened(image, gamma))


def _brightened(image: Tensor, gamma: float | None) -> Tensor:
    levels = image.double() if image.dtype == torch.uint8 else (image.double() * 255).round().clamp(0, 255)
    return reduced8(levels, gamma)


def _filtered(small: Tensor) -> Tensor:
    weights = constant(_GREY, small).view(3, 1, 1)
    grey = (((small * weights).sum(1) + 2**14) / 2**15).floor() / 255
    return guided_filter(grey, dark_channel(small / 255))


def reduced8(levels: Tensor, gamma: float | None) -> Tensor:
    """A quarter of the size, 8-bit values as float64, brightened by `gamma` (rounded down, as published)."""
    small = lanczos8(levels, levels.shape[-2] // 4, levels.shape[-1] // 4)
    return small if gamma is None else (255 * (small / 255) ** gamma).floor()


@remembered
def _box(size: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix (size, size) of means over a window from `window // 2` before to `(window - 1) // 2` after each position.

    The line is mirrored at its ends, without repeating the end points, as often as the window needs.
    """
    centre = torch.arange(size, device=device)[:, None]
    mirrored = reflected(centre + torch.arange(window, device=device) - window // 2, size)
    return torch.zeros(size, size, dtype=dtype, device=device).scatter_add_(
        1, mirrored, torch.full_like(mirrored, 1, dtype=dtype) / window
    )
