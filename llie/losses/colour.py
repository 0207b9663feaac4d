"""A loss on how colourful images are, for networks whose results are too pale."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from llie.errors import UserError
from llie.losses.base import ImageLoss
from llie.registry import LOSS_REGISTRY

EPS = 1e-6  # variance of images in [0, 1]: keeps the gradient of the root finite on grey images


@LOSS_REGISTRY.register()
class ColourfulnessLoss(ImageLoss):
    """Mean absolute difference of the colourfulness of regions.

    Where the colour of a pixel is uncertain, losses on pixels prefer grey, the middle of what is possible. This one
    compares how colourful a region is as a whole. It does not see which colour: use it beside a loss on pixels.

    With the opponent colours rg = R - G and yb = (R + G) / 2 - B, the colourfulness of a region is
    sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2) (Hasler and Süsstrunk, Human Vision and
    Electronic Imaging 2003).

    Args:
        reduction: "mean" or "sum" over regions.
        window: side of the square regions in pixels, 2 or more; the rows and columns that are left over do not count.
            Images that are smaller in one direction are one region in it.
    """

    def __init__(self, reduction: str = "mean", window: int = 32):
        super().__init__(reduction)
        if window < 2:
            raise UserError(f"window: {window} is too small; regions have a side of 2 pixels or more, for instance 32")
        self.window = window

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """See `ImageLoss.distance`."""
        return self.reduce((self.colourfulness(pred) - self.colourfulness(target)).abs())

    def colourfulness(self, images: Tensor) -> Tensor:
        """Colourfulness of each region: (..., 3, H, W) in [0, 1] -> (..., 1, H // window, W // window)."""
        if images.shape[-3] != 3:
            raise UserError(f"ColourfulnessLoss compares colours, RGB; this output has {images.shape[-3]} channels")
        red, green, blue = images.split(1, dim=-3)
        rg, yb = red - green, (red + green) / 2 - blue
        mean_rg, mean_yb = self._mean(rg), self._mean(yb)
        variance = self._mean(rg**2 + yb**2) - mean_rg**2 - mean_yb**2
        return (variance.clamp(min=0) + EPS).sqrt() + 0.3 * (mean_rg**2 + mean_yb**2 + EPS).sqrt()

    def _mean(self, maps: Tensor) -> Tensor:
        side = [min(self.window, length) for length in maps.shape[-2:]]
        means = F.avg_pool2d(maps.flatten(0, -4) if maps.dim() > 3 else maps, side)
        return means.reshape(*maps.shape[:-2], *means.shape[-2:])
