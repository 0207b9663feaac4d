"""Metrics that compare an output with its reference, pixel by pixel: PSNR, SSIM, MAE and colour difference."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import torch

from llie.errors import UserError
from llie.metrics.images import Image, Pixels
from llie.metrics.metric import MetricUnavailable, mean_over_pairs, register_metric


@register_metric("higher", also_called="calculate_psnr")
def psnr(
    pred: Image,
    gt: Image,
    protocol: str = "rgb8",
    crop_border: int = 0,
    test_y_channel: bool = False,
    input_order: str = "HWC",
) -> float:
    """Peak signal-to-noise ratio in dB, `10 log10(255^2 / MSE)` over all values; higher is better.

    Args:
        pred: tensor (3, H, W) or (B, 3, H, W) in [0, 1], or array (H, W, 3) uint8, uint16 or float in [0, 1]; RGB.
        gt: the reference, with the same size; its type may differ.
        protocol: name in `llie.metrics.PROTOCOLS`.
        crop_border: number of pixels to leave out on each side.
        test_y_channel: measure on Y; the protocol `rgb8` then means `y8`.
        input_order: order of axes of arrays: `HWC` or `CHW`.

    Returns:
        The mean over a batch; infinite if the images are identical under the protocol.

    Raises:
        UserError: the images are not finite, have different sizes or unknown types; unknown protocol.

    Example:
        >>> gt = np.full((16, 16, 3), 100, np.uint8)
        >>> round(psnr(gt + 1, gt), 3)
        48.131
    """
    return mean_over_pairs(_psnr, pred, gt, protocol, crop_border, test_y_channel, input_order)


@register_metric("higher", also_called="calculate_ssim")
def ssim(
    pred: Image,
    gt: Image,
    protocol: str = "rgb8",
    crop_border: int = 0,
    test_y_channel: bool = False,
    input_order: str = "HWC",
    border: str = "valid",
) -> float:
    """Structural similarity, at most 1; higher is better.

    The original form (Wang et al., TIP 2004): 11x11 Gaussian window, sigma 1.5, range 255, only windows that are
    completely inside the image, mean over pixels and channels.

    Args:
        pred: see `psnr`.
        gt: see `psnr`.
        protocol: see `psnr`.
        crop_border: see `psnr`.
        test_y_channel: see `psnr`.
        input_order: see `psnr`.
        border: "valid", or "zero": windows around every pixel, black outside (FFA-Net, HDM; the figures differ).

    Raises:
        UserError: as `psnr`; also an unknown border, or "valid" with a side shorter than 11 pixels.
    """
    if border not in ("valid", "zero"):
        raise UserError(f"ssim: border must be valid or zero, not {border!r}")
    similarity = partial(_ssim, valid=border == "valid")
    return mean_over_pairs(similarity, pred, gt, protocol, crop_border, test_y_channel, input_order)


@register_metric("higher")
def ms_ssim(pred: Image, gt: Image, protocol: str = "rgb8", crop_border: int = 0, input_order: str = "HWC") -> float:
    """Structural similarity over five scales (Wang et al., Asilomar 2003), at most 1; higher is better.

    Computed by the package `piq`: the window of `ssim`, 2x2 means between the scales, the published weights; a scale
    whose structure is negative counts as 0.

    Args:
        pred: see `psnr`; both sides at least 161 pixels.
        gt: see `psnr`.
        protocol: see `psnr`.
        crop_border: see `psnr`.
        input_order: see `psnr`.

    Raises:
        MetricUnavailable: the package is not here.
        UserError: as `psnr`; also an image too small for five scales.
    """
    try:
        import piq
    except ImportError:
        raise MetricUnavailable("ms_ssim needs the package piq: pip install 'llie[metrics]'") from None

    def similarity(p: Pixels, g: Pixels) -> float:
        if min(p.shape[:2]) < 161:
            raise UserError(f"MS-SSIM needs at least 161x161 pixels; the image has {p.shape[1]}x{p.shape[0]}")
        # Its convolutions take 15 times longer in float64, for a difference of 1e-6.
        images = (torch.from_numpy(image.clip(0, 255).transpose(2, 0, 1)).float()[None] for image in (p, g))
        return float(piq.multi_scale_ssim(*images, data_range=255))

    return mean_over_pairs(similarity, pred, gt, protocol, crop_border, input_order=input_order)


@register_metric("lower")
def mae(pred: Image, gt: Image, protocol: str = "rgb8", crop_border: int = 0) -> float:
    """Mean absolute error in [0, 1]; lower is better. Arguments and errors as `psnr`."""
    return mean_over_pairs(lambda p, g: float(np.abs(p - g).mean()) / 255, pred, gt, protocol, crop_border)


@register_metric("lower")
def delta_e(pred: Image, gt: Image, protocol: str = "rgb8", crop_border: int = 0) -> float:
    """Mean CIEDE2000 colour difference of sRGB images (D65); lower is better, about 2 is just noticeable.

    Arguments and errors as `psnr`; the protocol must be one on RGB.
    """
    return mean_over_pairs(_delta_e, pred, gt, protocol, crop_border)


def _psnr(pred: Pixels, gt: Pixels) -> float:
    mse = float(np.square(pred - gt).mean())
    return 10 * float(np.log10(255**2 / mse)) if mse > 0 else float("inf")


def _ssim(pred: Pixels, gt: Pixels, valid: bool) -> float:
    if valid and min(pred.shape[:2]) < 11:
        raise UserError(f"SSIM needs at least 11x11 pixels; the image has {pred.shape[1]}x{pred.shape[0]}")
    window = cv2.getGaussianKernel(11, 1.5)
    kept = slice(5, -5) if valid else slice(None)

    def blur(image: Pixels) -> Pixels:
        # The Gaussian is separable: two passes of 11 taps on all channels at once instead of 121 taps on each.
        return cv2.sepFilter2D(image, -1, window, window, borderType=cv2.BORDER_CONSTANT)[kept, kept]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_p, mean_g = blur(pred), blur(gt)
    mean_pg, mean_squares = mean_p * mean_g, mean_p**2 + mean_g**2
    covariance = blur(pred * gt) - mean_pg
    # Only the sum of the two variances is needed, so one filter pass is enough for both.
    variances = blur(pred**2 + gt**2) - mean_squares
    similarity = (2 * mean_pg + c1) * (2 * covariance + c2) / ((mean_squares + c1) * (variances + c2))
    return float(similarity.mean())


def _delta_e(pred: Pixels, gt: Pixels) -> float:
    from skimage.color import deltaE_ciede2000, rgb2lab  # slow to import, and rarely used

    if pred.shape[-1] != 3:
        raise UserError("delta_e measures colour; use a protocol on RGB")
    return float(deltaE_ciede2000(rgb2lab(pred / 255), rgb2lab(gt / 255)).mean())
