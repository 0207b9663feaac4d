"""llie's metrics with those of other libraries, on pairs: largest difference, and time in one thread.

python benchmarks/metrics.py datasets/LOLv1/eval15          (CIEDE2000 also needs: pip install colour-science)
"""

import argparse
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import numpy as np
import piq
import torch
import torchmetrics.functional as torchmetrics
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from timing import compare

from llie import bridge
from llie.data import build_dataset
from llie.metrics import delta_e, mae, ms_ssim, niqe, psnr, ssim
from llie.metrics.images import to_pixels
from llie.metrics.protocols import apply_protocol

Score = Callable[[np.ndarray, np.ndarray], float]  # of prediction and reference, (H, W, 3), uint8, RGB
GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def on_tensors(function: Callable[..., torch.Tensor], **options: object) -> Score:
    """A metric of (1, 3, H, W) in float64 on the 0..255 scale."""

    def score(*images: np.ndarray) -> float:
        return float(
            function(*(torch.from_numpy(i).double().permute(2, 0, 1)[None].contiguous() for i in images), **options)
        )

    return score


def by_colour_science(*images: np.ndarray) -> float:
    import colour

    lab = (colour.XYZ_to_Lab(colour.sRGB_to_XYZ(image / 255)) for image in images)
    return float(colour.delta_E(*lab, method="CIE 2000").mean())


def variants() -> dict[str, dict[str, Score]]:
    """Metric -> library -> its figure."""
    from basicsr.metrics import calculate_niqe, calculate_psnr, calculate_ssim

    image = torchmetrics.image
    return {
        "PSNR": {
            "llie": psnr,
            "BasicSR": lambda p, g: calculate_psnr(p, g, crop_border=0),
            "scikit-image": lambda p, g: peak_signal_noise_ratio(g, p),
            "torchmetrics": on_tensors(image.peak_signal_noise_ratio, data_range=255.0),
            "piq": on_tensors(piq.psnr, data_range=255),
        },
        "SSIM": {
            "llie": ssim,
            "BasicSR": lambda p, g: calculate_ssim(p, g, crop_border=0),
            "scikit-image": lambda p, g: structural_similarity(
                g / 1.0, p / 1.0, channel_axis=2, data_range=255, **GAUSSIAN
            ),
            "torchmetrics": on_tensors(image.structural_similarity_index_measure, data_range=255.0),
            "piq": on_tensors(piq.ssim, data_range=255, downsample=False),
        },
        "MS-SSIM": {
            "llie": ms_ssim,
            "torchmetrics": on_tensors(image.multiscale_structural_similarity_index_measure, data_range=255.0),
            "piq": on_tensors(piq.multi_scale_ssim, data_range=255),
        },
        "MAE": {"llie": mae, "torchmetrics": lambda p, g: on_tensors(torchmetrics.mean_absolute_error)(p, g) / 255},
        "CIEDE2000": {"llie": delta_e, "colour-science": by_colour_science},
        "NIQE": {
            "llie": lambda p, g: niqe(p),
            "BasicSR": lambda p, g: calculate_niqe(p[..., ::-1], crop_border=0),
        },
    }


def pairs(folder: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The inputs with the brightness of their references, and the references."""
    for item in build_dataset({"type": "PairedImageDataset", "dataroot": folder, "name": "pairs"}, "test"):
        images = (to_pixels(item[key])[0] for key in ("lq", "gt"))
        prediction, reference = (image.round().astype(np.uint8) for image in apply_protocol("rgb8-gtmean", *images))
        yield prediction, reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="pairs in low/ and high/")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="such as NIQE; default: all")
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")  # about packages that are not needed here
    bridge.basicsr()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    images = list(pairs(arguments.folder))
    print(f"{len(images)} pairs, the first of {images[0][0].shape[1]}x{images[0][0].shape[0]} pixels")
    chosen = variants()
    for metric in arguments.metrics or chosen:
        scores = chosen[metric]
        differences = {
            name: max(abs(score(*pair) - scores["llie"](*pair)) for pair in images) for name, score in scores.items()
        }
        times = compare({name: partial(score, *images[0]) for name, score in scores.items()}, arguments.rounds)
        print(f"{metric:<28} difference            time")
        for name, (seconds, ratio) in times.items():
            print(f"  {name:<26} {differences[name]:10.2g} {1000 * seconds:9.1f} ms {1 / ratio:8.2f}x")


if __name__ == "__main__":
    main()
