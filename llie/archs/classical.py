"""Enhancement by fixed rules, without training: the baselines that a trained network has to beat.

None of these has parameters, so none needs weights and none can be trained. All but `Gamma` work in float64 and give no
gradients.
"""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llie.archs.card import Card
from llie.errors import UserError
from llie.ops.exporting import exporting
from llie.ops.filters import gaussian_window, separable_filter
from llie.ops.weighted_smoothing import weighted_smoothing
from llie.registry import ARCH_REGISTRY

_GONZALEZ_WOODS = "Digital Image Processing, Prentice Hall 2002"


@ARCH_REGISTRY.register()
class Gamma(nn.Module):
    """Raises every value to the same power.

    Args:
        gamma: the exponent; below 1 brightens.

    Raises:
        UserError: the exponent is not positive.
    """

    card = Card(
        paper=f"Power-law transformation; Gonzalez and Woods, {_GONZALEZ_WOODS}",
        url="https://www.imageprocessingplace.com",
        learned=False,
    )

    def __init__(self, gamma: float = 1 / 2.2):
        super().__init__()
        self.gamma = _positive("Gamma", "gamma", gamma)

    def forward(self, x: Tensor, gamma: float | None = None) -> Tensor:
        """X (B, 3, H, W) in [0, 1] -> the same shape; `gamma` overrides that of the constructor."""
        return x.clamp(0, 1) ** (self.gamma if gamma is None else _positive("Gamma", "gamma", gamma))


@ARCH_REGISTRY.register()
class HistogramEqualisation(nn.Module):
    """Spreads the value of HSV, the largest channel, evenly over its 256 levels (OpenCV's `equalizeHist`).

    Hue and saturation do not change: each pixel is scaled by the ratio of its new value to its old one.
    """

    card = Card(
        paper=f"Histogram equalisation; Gonzalez and Woods, {_GONZALEZ_WOODS}",
        url="https://www.imageprocessingplace.com",
        global_statistics=True,
        learned=False,
        not_exported="it computes with OpenCV, outside of any graph",
    )

    def forward(self, x: Tensor) -> Tensor:
        """X (B, 3, H, W) in [0, 1] -> the same shape."""
        image = x.detach().double().clamp(0, 1)
        value = image.amax(1, keepdim=True)
        levels = (255 * value[:, 0]).round().byte().cpu().numpy()
        spread = np.stack([cv2.equalizeHist(one) for one in levels])
        scale = torch.from_numpy(spread).to(value)[:, None] / 255 / value.clamp(min=1 / 255)
        return (image * scale).clamp(0, 1).to(x.dtype)


@ARCH_REGISTRY.register()
class CLAHE(nn.Module):
    """Equalises the lightness L of CIELAB within tiles, with limited contrast (OpenCV's `CLAHE`, on 256 levels of L).

    Args:
        clip_limit: the largest share of a level in a tile, in multiples of an even share; the excess is spread over
            all levels.
        tiles: rows and columns of tiles.

    Raises:
        UserError: an argument is not positive.
    """

    card = Card(
        paper="Contrast Limited Adaptive Histogram Equalization, Graphics Gems IV 1994",
        url="https://doi.org/10.1016/B978-0-12-336156-1.50061-6",
        global_statistics=True,
        learned=False,
        not_exported="it computes with OpenCV, outside of any graph",
    )

    def __init__(self, clip_limit: float = 2.0, tiles: int = 8):
        super().__init__()
        self.clip_limit = _positive("CLAHE", "clip_limit", clip_limit)
        self.tiles = int(_positive("CLAHE", "tiles", tiles))

    def forward(self, x: Tensor, clip_limit: float | None = None) -> Tensor:
        """X (B, 3, H, W) in [0, 1] -> the same shape; `clip_limit` overrides that of the constructor."""
        from skimage.color import lab2rgb, rgb2lab  # slow to import

        limit = self.clip_limit if clip_limit is None else _positive("CLAHE", "clip_limit", clip_limit)
        equalise = cv2.createCLAHE(limit, (self.tiles, self.tiles)).apply
        results = []
        for image in x.detach().clamp(0, 1).permute(0, 2, 3, 1).double().cpu().numpy():
            lab = rgb2lab(image)  # L in [0, 100]
            lab[..., 0] = equalise(np.rint(lab[..., 0] * 2.55).astype(np.uint8)) / 2.55
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # colours outside sRGB are clipped
                results.append(torch.from_numpy(lab2rgb(lab)))
        return torch.stack(results).permute(0, 3, 1, 2).contiguous().to(x)


@ARCH_REGISTRY.register()
class LIME(nn.Module):
    """Divides the image by an illumination map that is smooth except at the edges of objects.

    The initial map t0 is the largest channel of each pixel. The refined map t minimises (equation 16, with the weights
    of strategy III)

        sum (t - t0)^2 + alpha sum_d W_d / (|D_d t0| + eps) (D_d t)^2,    W_d = 1 / (|G * D_d t0| + eps)

    over both directions d, where D is the difference of neighbours and G a Gaussian window. Small differences that
    cancel out within the window are texture: the map ignores them, so the result keeps them. The published denoising
    (BM3D) is left out.

    Args:
        gamma: the map is raised to this power before the division; below 1 the result is a little darker.
        alpha: weight of the smoothness.
        sigma: standard deviation of the window of 5x5 pixels.

    Raises:
        UserError: an argument is not positive.
    """

    card = Card(
        paper="LIME: Low-Light Image Enhancement via Illumination Map Estimation, TIP 2017",
        url="https://doi.org/10.1109/TIP.2016.2639450",
        global_statistics=True,
        learned=False,
        not_exported="it iterates on each image until that has converged",
    )
    eps = 1e-3  # keeps denominators from zero
    darkest = 1 / 255  # smallest divisor: below one 8-bit level there is nothing to see

    def __init__(self, gamma: float = 0.8, alpha: float = 0.15, sigma: float = 2.0):
        super().__init__()
        self.gamma = _positive("LIME", "gamma", gamma)
        self.alpha, self.sigma = _positive("LIME", "alpha", alpha), _positive("LIME", "sigma", sigma)

    def forward(self, x: Tensor, gamma: float | None = None) -> Tensor:
        """X (B, 3, H, W) in [0, 1] -> the same shape; `gamma` overrides that of the constructor."""
        gamma = self.gamma if gamma is None else _positive("LIME", "gamma", gamma)
        image = x.detach().double().clamp(0, 1)
        maps = torch.stack([self.illumination(one) for one in image])
        return (image / maps[:, None].clamp(min=self.darkest) ** gamma).clamp(0, 1).to(x.dtype)

    def illumination(self, image: Tensor) -> Tensor:
        """The refined map (H, W) of one image (3, H, W), float64."""
        start = image.amax(0)
        return weighted_smoothing(start, self._weights(start.T).T, self._weights(start))

    def _weights(self, start: Tensor) -> Tensor:
        """Weights of the squared differences between horizontal neighbours, (H, W - 1)."""
        difference = start.diff(dim=1)
        if not difference.numel():
            return difference
        window = gaussian_window(5, self.sigma).to(difference)
        nearby = separable_filter(F.pad(difference[None], (2, 2, 2, 2)), window)[0]
        return self.alpha / ((nearby.abs() + self.eps) * (difference.abs() + self.eps))


def _positive(network: str, argument: str, value: float) -> float:
    if not exporting() and not value > 0:  # a graph holds no messages
        raise UserError(f"{network}: {argument} must be greater than 0, not {value}")
    return value
