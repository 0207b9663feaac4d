"""Losses on neighbourhoods: structural similarity and edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from llie.errors import UserError
from llie.losses.base import ImageLoss, check_choice
from llie.ops.filters import gaussian_window, separable_filter
from llie.ops.ssim import ssim_map
from llie.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class SSIMLoss(ImageLoss):
    """1 - mean SSIM, data range 1.

    Args:
        window_size: side of the Gaussian window, odd.
        sigma: standard deviation of the window in pixels.
        padding: "zero" keeps the size (published recipes), "valid" uses only whole windows (MATLAB).
    """

    window: Tensor

    def __init__(self, window_size: int = 11, sigma: float = 1.5, padding: str = "zero"):
        super().__init__()
        check_choice("padding", padding, ("zero", "valid"))
        if window_size % 2 == 0:
            raise UserError(f"window_size: {window_size} is even; use an odd size, for instance 11")
        self.padding = window_size // 2 if padding == "zero" else 0
        self.register_buffer("window", gaussian_window(window_size, sigma), persistent=False)

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """See `ImageLoss.distance`."""
        smallest, size = min(pred.shape[-2:]), len(self.window)
        if not self.padding and smallest < size:
            raise UserError(f"SSIM with 'padding: valid' needs images of at least {size}x{size}, got a side {smallest}")
        return 1 - self.reduce(ssim_map(pred, target, self.window, self.padding))


@LOSS_REGISTRY.register()
class EdgeLoss(ImageLoss):
    """Mean squared difference of Laplacians: the image minus its enlarged coarse level (Burt and Adelson, 1983)."""

    taps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("taps", torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05]), persistent=False)

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """See `ImageLoss.distance`."""
        # The Laplacian is linear, so one of the difference replaces the difference of two.
        return self.reduce(self.laplacian(pred - target) ** 2)

    def laplacian(self, maps: Tensor) -> Tensor:
        """The finest level of the Laplacian pyramid of (..., H, W), at the same size."""
        coarse = torch.zeros_like(maps)
        coarse[..., ::2, ::2] = 4 * separable_filter(self._padded(maps), self.taps, stride=2)
        return maps - separable_filter(self._padded(coarse), self.taps)

    def _padded(self, maps: Tensor) -> Tensor:
        flat = maps.reshape(1, -1, *maps.shape[-2:])
        return F.pad(flat, (2, 2, 2, 2), mode="replicate").reshape(*maps.shape[:-2], -1, maps.shape[-1] + 4)
