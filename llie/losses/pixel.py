"""Losses on single pixels and on neighbouring ones: L1, MSE, Charbonnier, PSNR, total variation."""

from __future__ import annotations

import torch
from torch import Tensor

from llie.losses.base import ImageLoss, check_choice
from llie.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class L1Loss(ImageLoss):
    """Mean (or sum) of |pred - target|.

    Args:
        reduction: "mean" or "sum".
    """

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """See `ImageLoss.distance`."""
        return self.reduce((pred - target).abs())


@LOSS_REGISTRY.register()
class MSELoss(ImageLoss):
    """Mean (or sum) of (pred - target)^2.

    Args:
        reduction: "mean" or "sum".
    """

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """See `ImageLoss.distance`."""
        return self.reduce((pred - target) ** 2)


@LOSS_REGISTRY.register()
class CharbonnierLoss(ImageLoss):
    """Mean (or sum) of sqrt((pred - target)^2 + eps): L1 with a gradient at zero.

    Args:
        reduction: "mean" or "sum".
        eps: added to the square, inside the root (BasicSR's convention).
    """

    def __init__(self, reduction: str = "mean", eps: float = 1e-12):
        super().__init__(reduction)
        self.eps = eps

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """See `ImageLoss.distance`."""
        return self.reduce(torch.sqrt((pred - target) ** 2 + self.eps))


@LOSS_REGISTRY.register()
class PSNRLoss(ImageLoss):
    """Negative PSNR in dB of images in [0, 1], mean over images: 10 log10(MSE + 1e-8) (as in NAFNet and HINet).

    Args:
        reduction: "mean" over images; there is no "sum", which would depend on the batch size.
        toY: compare luminance (BT.601, 16 to 235) instead of RGB.
    """

    luma: Tensor

    def __init__(self, reduction: str = "mean", toY: bool = False):
        check_choice("reduction", reduction, ("mean",))
        super().__init__(reduction)
        self.to_luma = toY
        self.register_buffer("luma", torch.tensor([65.481, 128.553, 24.966]).view(3, 1, 1) / 255, persistent=False)

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """See `ImageLoss.distance`."""
        difference = pred - target
        if self.to_luma:  # its offset cancels out
            difference = (difference * self.luma).sum(-3, keepdim=True)
        return 10 * torch.log10((difference**2).mean((-3, -2, -1)) + 1e-8)


@LOSS_REGISTRY.register()
class TVLoss(ImageLoss):
    """Anisotropic total variation: absolute differences between vertical neighbours plus those between horizontal ones.

    It needs no target. Images of a single row or column have differences in one direction only.

    Args:
        reduction: "mean" (over each direction separately) or "sum".
    """

    needs_target = False

    def forward(self, pred: Tensor) -> Tensor:  # type: ignore[override]
        """Total variation of (B, C, H, W) as a scalar."""
        return self.variation(pred)

    def variation(self, pred: Tensor, weight: Tensor | None = None) -> Tensor:
        """Total variation, where each difference is multiplied by the weight of its upper or left pixel."""
        total = pred.new_zeros(())
        for dim in (-2, -1):
            length = pred.shape[dim] - 1
            difference = pred.diff(dim=dim).abs()
            if weight is not None:
                difference = difference * weight.narrow(dim, 0, length)
            total = total + (self.reduce(difference, dims=None) if length else difference.sum())
        return total


@LOSS_REGISTRY.register()
class WeightedTVLoss(TVLoss):
    """BasicSR's name for `TVLoss`, with an optional map of weights."""

    def forward(self, pred: Tensor, weight: Tensor | None = None) -> Tensor:
        """Total variation of (B, C, H, W), weighted by a map that broadcasts with it."""
        return self.variation(pred, weight)
