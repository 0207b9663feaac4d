"""Metrics as pure functions of (prediction, reference, protocol); protocols.py names every protocol once.

>>> import numpy as np
>>> from llie.metrics import psnr
>>> gt = np.full((16, 16, 3), 100, np.uint8)
>>> round(psnr(gt + 10, gt, "rgb8"), 2)
28.13
>>> psnr(gt + 10, gt, "rgb8-gtmean")
inf
"""

from llie.metrics.fidelity import delta_e, mae, psnr, ssim
from llie.metrics.metric import Metric, MetricUnavailable, create_metric, register_metric
from llie.metrics.naturalness import brisque, niqe
from llie.metrics.perceptual import lpips
from llie.metrics.protocols import PROTOCOLS

__all__ = [
    "PROTOCOLS",
    "Metric",
    "MetricUnavailable",
    "brisque",
    "create_metric",
    "delta_e",
    "lpips",
    "mae",
    "niqe",
    "psnr",
    "register_metric",
    "ssim",
]
