"""PSNR, SSIM and NIQE of one 600x400 image: ours against BasicSR's.

python benchmarks/metrics.py
"""

import argparse

import cv2
import numpy as np
from timing import compare, report

from llie import bridge
from llie.metrics import niqe, psnr, ssim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()

    bridge.basicsr()
    from basicsr.metrics import calculate_niqe, calculate_psnr, calculate_ssim

    cv2.setNumThreads(1)
    random = np.random.default_rng(0)
    gt = cv2.GaussianBlur(random.integers(0, 256, (400, 600, 3), dtype=np.uint8), (0, 0), 2)
    pred = np.clip(gt + random.normal(0, 5, gt.shape), 0, 255).astype(np.uint8)
    bgr_pred, bgr_gt = pred[..., ::-1], gt[..., ::-1]
    pairs = {
        "PSNR": (lambda: calculate_psnr(bgr_pred, bgr_gt, crop_border=0), lambda: psnr(pred, gt)),
        "SSIM": (lambda: calculate_ssim(bgr_pred, bgr_gt, crop_border=0), lambda: ssim(pred, gt)),
        "NIQE": (lambda: calculate_niqe(bgr_pred, crop_border=0), lambda: niqe(pred)),
    }
    for title, (basicsr, ours) in pairs.items():
        np.testing.assert_allclose(ours(), basicsr(), atol=1e-2)
        report(title, compare({"BasicSR": basicsr, "ours": ours}, arguments.rounds))


if __name__ == "__main__":
    main()
