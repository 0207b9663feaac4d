"""The four losses of Zero-DCE (Guo et al., CVPR 2020), which need no reference.

Published weights: illumination smoothness 200 (on the curves), spatial consistency 1, colour constancy 5, exposure 10.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llie.errors import UserError
from llie.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class SpatialConsistencyLoss(nn.Module):
    """Neighbouring regions should differ as much as they do in the input.

    Let d be the difference of the two images' grey means over each 4x4 region, and 0 outside the image. The loss is the
    mean over regions of the sum of `(d - d_neighbour)^2` over the four neighbours. It compares with the input, `lq`.

    Args:
        region: side of the regions in pixels; incomplete regions at the right and bottom are ignored.
    """

    default_target = "lq"

    def __init__(self, region: int = 4):
        super().__init__()
        self.region = _side("region", region)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of (B, 3, H, W) against the input of that shape, as a scalar."""
        d = F.pad(_region_means(pred - target, self.region, "SpatialConsistencyLoss"), (1, 1, 1, 1))
        # A region at the edge has a neighbour whose difference is 0, so every side of every region counts.
        inner = slice(1, -1)
        across, along = d[..., inner, :].diff(dim=-1).square(), d[..., inner].diff(dim=-2).square()
        sums = across.sum() + across[..., inner].sum() + along.sum() + along[..., inner, :].sum()
        return sums / d[..., inner, inner].numel()


@LOSS_REGISTRY.register()
class ExposureControlLoss(nn.Module):
    """Mean over 16x16 regions of the squared difference of their grey mean from a well-exposed level.

    Args:
        level: target grey mean of a region.
        region: side of the regions in pixels; incomplete regions at the right and bottom are ignored.
    """

    needs_target = False

    def __init__(self, level: float = 0.6, region: int = 16):
        super().__init__()
        self.level, self.region = level, _side("region", region)

    def forward(self, pred: Tensor) -> Tensor:
        """Loss of (B, 3, H, W) as a scalar."""
        return (_region_means(pred, self.region, "ExposureControlLoss") - self.level).square().mean()


@LOSS_REGISTRY.register()
class ColourConstancyLoss(nn.Module):
    """The means R, G, B of an image should be equal: `sqrt((R - G)^4 + (R - B)^4 + (B - G)^4)`, mean over the batch."""

    needs_target = False

    def forward(self, pred: Tensor) -> Tensor:
        """Loss of (B, 3, H, W) as a scalar."""
        red, green, blue = pred.mean((2, 3)).unbind(1)
        apart = torch.stack([red - green, red - blue, blue - green])
        # The norm of the squares: unlike an explicit root, it has a gradient (0) where all three are equal.
        return torch.linalg.vector_norm(apart.square(), dim=0).mean()


@LOSS_REGISTRY.register()
class IlluminationSmoothnessLoss(nn.Module):
    """Squared differences of neighbours in curve maps: twice the mean over images and pixels, summed over maps.

    For Zero-DCE's curves: `pred: curves`.
    """

    needs_target = False

    def forward(self, pred: Tensor) -> Tensor:
        """Loss of (B, C, H, W) as a scalar."""
        height, width = pred.shape[-2:]
        if min(height, width) < 2:
            raise UserError(f"IlluminationSmoothnessLoss needs maps of at least 2x2 pixels, not {width}x{height}")
        down, right = (pred.diff(dim=dim).square().sum() for dim in (-2, -1))
        return 2 / len(pred) * (down / ((height - 1) * width) + right / (height * (width - 1)))


def _region_means(image: Tensor, side: int, loss: str) -> Tensor:
    """Grey means (B, 1, H // side, W // side) of whole regions."""
    height, width = image.shape[-2:]
    if min(height, width) < side:
        raise UserError(f"{loss} needs images of at least {side}x{side} pixels, not {width}x{height}")
    return F.avg_pool2d(image.mean(1, keepdim=True), side)


def _side(option: str, value: int) -> int:
    if value < 1:
        raise UserError(f"{option}: the side of a region must be at least 1, not {value}")
    return value
