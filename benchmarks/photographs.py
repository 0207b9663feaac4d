"""Figures of Dawn and of common alternatives on photographs from night to well lit.

    python benchmarks/photographs.py [--model NAME=MODEL ...] [--pairs LOLv1] [--photographs FOLDER] [--save FOLDER]

Columns: PSNR / SSIM (rgb8, plain and GT-mean) on real pairs; PSNR at each exposure of held-out photographs that the
camera model of `llie.data.lowlight` darkens; PSNR and further clipped pixels on the same photographs untouched; how
much of each unpaired photograph becomes clipped. Rows besides those given: the input itself, and the classical methods.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from skimage import exposure

import llie
from llie.data.demo import _shipped
from llie.data.lowlight import Camera
from llie.data.pairing import find_sides, list_images, pair_folders
from llie.data.readers import read_image, write_image
from llie.metrics import psnr, ssim

Method = Callable[[np.ndarray], np.ndarray]

HELD_OUT = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")  # scikit-image's; never trained on
STOPS = (-1, -2, -3, -4, -5)


def bytes_of(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def classical() -> dict[str, Method]:
    """The methods of scikit-image; CLAHE and LIME are among llie's networks."""
    return {
        "input": lambda image: image,
        "gamma 0.45 (scikit-image)": lambda image: exposure.adjust_gamma(image, 0.45),
        "equalisation (scikit-image)": lambda image: bytes_of(
            np.stack([exposure.equalize_hist(image[..., channel]) for channel in range(3)], axis=2)
        ),
        "CLAHE (OpenCV)": llie.load("clahe"),
        "LIME": llie.load("lime"),
        "Dawn": llie.load(),
    }


def clipped(image: np.ndarray) -> float:
    """Share of pixels of at least 250 in all channels."""
    return float((image >= 250).all(2).mean())


def held_out(folder: str | None) -> dict[str, np.ndarray]:
    if folder is not None:
        found = {path.stem: read_image(path) for path in list_images(Path(folder))}
        return {name: reduced(image) for name, image in found.items()}
    return {name: reduced(read_image(_shipped(name))) for name in HELD_OUT}


def reduced(image: np.ndarray, side: int = 800) -> np.ndarray:
    scale = side / max(image.shape[:2])
    return image if scale >= 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def darkened(image: np.ndarray, stops: float, seed: int) -> np.ndarray:
    """The photograph at an exposure, with noise and rounding."""
    camera = Camera(
        (stops, stops), untouched=0, uneven=0, cast=0, gamma=(1, 1), shot=(5e-5,) * 2, read=(3e-4,) * 2, jpeg=0
    )
    return camera(image, np.random.default_rng(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", nargs="+", default=[], metavar="NAME=MODEL", help="further rows: anything llie.load takes"
    )
    parser.add_argument("--pairs", help="a folder of real pairs, for instance LOLv1, whose test split is measured")
    parser.add_argument("--photographs", help="held-out photographs; scikit-image's when left out")
    parser.add_argument("--unpaired", nargs="+", default=[], help="dark photographs without references")
    parser.add_argument("--save", help="write the results there as pictures")
    words = parser.parse_args()
    methods = classical() | {name: llie.load(model) for name, model in (word.split("=", 1) for word in words.model)}
    photographs = held_out(words.photographs)
    pairs = pair_folders(*([side] for side in find_sides(words.pairs, "test"))) if words.pairs else []
    unpaired = {path.stem: read_image(path) for folder in words.unpaired for path in list_images(Path(folder))}

    def enhance(name: str, what: str, image: np.ndarray) -> np.ndarray:
        result = methods[name](image)
        if words.save:
            write_image(Path(words.save) / what / f"{name.split(' ')[0]}.png", result)
        return result

    header = ["plain", "GT-mean", *(f"{stops} EV" for stops in STOPS), "untouched", "clipped", *unpaired]
    print("| | " + " | ".join(header) + " |\n|" + "---|" * (len(header) + 1))
    for name in methods:
        row = []
        results = [(enhance(name, f"pairs/{p.gt.stem}", read_image(p.lq)), read_image(p.gt)) for p in pairs]
        for protocol in ("rgb8", "rgb8-gtmean"):
            figures = [np.mean([f(*r, protocol) for r in results]) for f in (psnr, ssim)] if results else []
            row.append(f"{figures[0]:.2f} / {figures[1]:.3f}" if figures else "-")
        for stops in STOPS:
            scores = [
                psnr(enhance(name, f"{stops}EV/{key}", darkened(image, stops, seed)), image)
                for seed, (key, image) in enumerate(photographs.items())
            ]
            row.append(f"{np.mean(scores):.2f}")
        same = [(enhance(name, f"untouched/{key}", image), image) for key, image in photographs.items()]
        scores = [psnr(*pair) for pair in same]
        row.append(f"{np.mean(scores):.2f} (least {min(scores):.2f})")
        row.append(f"{max(100 * (clipped(result) - clipped(image)) for result, image in same):+.2f} %")
        for key, image in unpaired.items():
            row.append(f"{100 * (clipped(enhance(name, f'unpaired/{key}', image)) - clipped(image)):+.2f} %")
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
