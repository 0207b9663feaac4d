"""Metrics: a prediction, a reference and the name of a protocol go in, a number comes out.

Pure functions; `protocols` names every protocol once. Evaluation, options and users' programs call it.

>>> import numpy as np
>>> from llie.metrics import psnr
>>> gt = np.full((16, 16, 3), 100, np.uint8)
>>> round(psnr(gt + 10, gt, "rgb8"), 2)
28.13
>>> psnr(gt + 10, gt, "rgb8-gtmean")
inf
"""

from llie.metrics.fidelity import delta_e, mae, ms_ssim, psnr, ssim
from llie.metrics.lightness_order import loe
from llie.metrics.metric import Metric, MetricUnavailable, create_metric, register_metric
from llie.metrics.naturalness import brisque, niqe
from llie.metrics.perceptual import dists, lpips
from llie.metrics.protocols import PROTOCOLS

__all__ = [
    "PROTOCOLS",
    "Metric",
    "MetricUnavailable",
    "brisque",
    "create_metric",
    "delta_e",
    "dists",
    "loe",
    "lpips",
    "mae",
    "ms_ssim",
    "niqe",
    "psnr",
    "register_metric",
    "ssim",
]
