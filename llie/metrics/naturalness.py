"""Naturalness without a reference: NIQE (Mittal, Soundararajan and Bovik, SPL 2013), and BRISQUE through `piq`.

NIQE compares the statistics of 96x96 blocks at two scales with those of pristine photographs. `niqe_pristine.npz`
contains their mean (36,) and covariance (36, 36), as published by the authors.
"""

from __future__ import annotations

import functools
import pickle
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.special import gamma

from llie.errors import UserError
from llie.metrics.images import Image, Pixels
from llie.metrics.metric import MetricUnavailable, mean_over_images, register_metric
from llie.metrics.protocols import to_luma

BRISQUE_VECTORS = "https://github.com/photosynthesis-team/piq/releases/download/v0.4.0/brisque_svm_weights.pt"
BLOCK = 96
SHAPES = np.arange(0.2, 10.001, 0.001)
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


@register_metric("lower", needs_reference=False, also_called="calculate_niqe")
def niqe(
    pred: Image, protocol: str = "rgb8", crop_border: int = 0, input_order: str = "HWC", convert_to: str = "y"
) -> float:
    """Natural image quality evaluator, roughly 2 (natural) to 20; lower is better.

    Red and blue are in the right order here. HVI-CIDNet and HVI-SMM swap them; their figures differ by 0.1 to 2.

    Args:
        pred: see `psnr`.
        protocol: one that needs no reference; see `psnr`.
        crop_border: see `psnr`.
        input_order: see `psnr`.
        convert_to: `y`, the luma of BT.601 in 16..235 (BasicSR's default), or `gray`, its full-range form.

    Returns:
        NaN, with a warning, if the image is too small (fewer than two blocks of 96x96) or too flat for statistics;
        this says nothing about the network. NaN *in* the image is an error.

    Raises:
        UserError: see `psnr`.
    """
    if convert_to not in ("y", "gray"):
        raise UserError(f"niqe: convert_to must be y or gray, not {convert_to!r}")
    to_grey = to_luma if convert_to == "y" else _gray

    def measure(image: Pixels) -> float:
        return _niqe(to_grey(image)[..., 0].round())

    return mean_over_images(measure, pred, protocol, crop_border, input_order)


@register_metric("lower", needs_reference=False)
def brisque(pred: Image, protocol: str = "rgb8", crop_border: int = 0, input_order: str = "HWC") -> float:
    """Blind/referenceless image spatial quality evaluator (Mittal et al., TIP 2012), about 0..100; lower is better.

    Computed by the package `piq`, as for HVI-SMM. HVI-CIDNet used another package with other support vectors, so its
    figures are not comparable.

    Args:
        pred: see `psnr`.
        protocol: one that needs no reference; see `psnr`.
        crop_border: see `psnr`.
        input_order: see `psnr`.

    Raises:
        MetricUnavailable: the package or its file of support vectors is missing; nothing is downloaded.
        UserError: as `psnr`.
    """
    try:
        import piq
    except ImportError:
        raise MetricUnavailable("brisque needs the package piq: pip install 'llie[metrics]'") from None
    # piq searches torch hub's cache only, and downloads a missing file.
    vectors = Path(torch.hub.get_dir()) / "checkpoints" / BRISQUE_VECTORS.rsplit("/", 1)[-1]
    if not vectors.is_file():
        raise MetricUnavailable(f"brisque needs the file {vectors}: download {BRISQUE_VECTORS} to there")
    try:
        torch.load(vectors, weights_only=True)  # refuses a file with code, which piq would run
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise MetricUnavailable(f"{vectors} is damaged or not what piq published at {BRISQUE_VECTORS}") from None

    def measure(image: Pixels) -> float:
        if np.ptp(image) == 0:
            return _without_statistics("BRISQUE", "is too flat")
        return float(piq.brisque(torch.from_numpy(image).permute(2, 0, 1)[None].float(), data_range=255.0))

    return mean_over_images(measure, pred, protocol, crop_border, input_order)


def _gray(image: Pixels) -> Pixels:
    return (image @ np.array([0.299, 0.587, 0.114]))[..., None] if image.shape[-1] == 3 else image


def _niqe(grey: Pixels) -> float:
    """NIQE of (H, W) on the 0..255 scale."""
    rows, columns = grey.shape[0] // BLOCK, grey.shape[1] // BLOCK
    if rows * columns < 2:
        size = f"{grey.shape[1]}x{grey.shape[0]}"
        return _without_statistics("NIQE", f"of {size} pixels is too small for two blocks of {BLOCK}x{BLOCK}")
    grey = grey[: rows * BLOCK, : columns * BLOCK]
    half = _half_size(grey)
    with np.errstate(divide="ignore", invalid="ignore"):  # flat blocks give NaN and are left out below
        features = np.concatenate([_block_features(grey, BLOCK), _block_features(half, BLOCK // 2)], axis=1)
    complete = features[~np.isnan(features).any(axis=1)]
    if len(complete) < 2:
        return _without_statistics("NIQE", "is too flat: fewer than two of its blocks have texture")
    pristine_mean, pristine_covariance = _pristine()
    difference = pristine_mean - np.nanmean(features, axis=0)
    pooled = (pristine_covariance + np.cov(complete, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))


def _without_statistics(metric: str, why: str) -> float:
    warnings.warn(f"{metric} is NaN: the image {why}", RuntimeWarning, stacklevel=2)
    return float("nan")


@functools.cache
def _pristine() -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(__file__).with_name("niqe_pristine.npz")) as data:
        return data["mean"], data["covariance"]


def _half_size(image: Pixels) -> Pixels:
    """MATLAB's `imresize(image, 0.5)`: bicubic (a = -0.5), antialiased by stretching to 8 taps, mirrored borders."""
    distance = np.abs(np.arange(8) - 3.5) / 2
    inner = 1.5 * distance**3 - 2.5 * distance**2 + 1
    outer = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = np.where(distance <= 1, inner, outer) / 2
    return cv2.sepFilter2D(image, -1, taps, taps, anchor=(3, 3), borderType=cv2.BORDER_REFLECT)[::2, ::2]


def _block_features(grey: Pixels, size: int) -> np.ndarray:
    """Features of every block, (blocks, 18): distributions of the coefficients and of products of neighbours."""
    window = cv2.getGaussianKernel(7, 7 / 6)

    def blur(image: Pixels) -> Pixels:
        return cv2.sepFilter2D(image, -1, window, window, borderType=cv2.BORDER_REPLICATE)

    mean = blur(grey)
    deviation = np.sqrt(np.abs(blur(grey**2) - mean**2))
    normalised = (grey - mean) / (deviation + 1)
    # Flat areas are neither above nor below their mean; the sign of a rounding error would move NIQE by up to 0.3.
    normalised[np.abs(normalised) < 1e-9] = 0
    rows, columns = grey.shape[0] // size, grey.shape[1] // size
    blocks = normalised.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, size, size)
    shape, left, right = _asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _asymmetric_gaussian(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean_product = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        features += [shape, mean_product, left, right]
    return np.stack(features, axis=1)


def _asymmetric_gaussian(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shape, left and right scale of the generalised Gaussian fitted by moments to each of (blocks, H, W)."""
    values = blocks.reshape(len(blocks), -1)
    squares = values**2
    negative, positive = values < 0, values > 0
    left = np.sqrt((squares * negative).sum(1) / negative.sum(1))
    right = np.sqrt((squares * positive).sum(1) / positive.sum(1))
    skew = left / right
    ratio = np.abs(values).mean(1) ** 2 / squares.mean(1)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = SHAPES[np.abs(RATIOS - ratio[:, None]).argmin(1)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale
