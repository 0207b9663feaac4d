"""Crops per second of the training loader, cached against decoding every file for every crop."""

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from llie.data import build_dataset, build_train_loader, write_image

WIDTH, HEIGHT, CROP, BATCH = 600, 400, 256, 8


def write_pairs(folder: Path, count: int) -> None:
    """Pairs of 600x400 PNGs with noise, which makes real ones slow to decode."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = cv2.resize(random.random((20, 30, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        noisy = 255 * coarse + random.normal(0, 3, (HEIGHT, WIDTH, 3))
        high = np.clip(noisy, 0, 255).astype(np.uint8)
        write_image(folder / "high" / f"{number}.png", high)
        write_image(folder / "low" / f"{number}.png", high // 10)


def rate(folder: Path, cache: str, workers: int, seconds: float) -> float:
    """Pairs of crops per second, after the workers have started."""
    options = {"type": "PairedImageDataset", "dataroot": str(folder), "gt_size": CROP, "geometric_augs": True}
    loader_options = {"batch_size_per_gpu": BATCH, "num_worker_per_gpu": workers}
    loader = build_train_loader(build_dataset({**options, "cache": cache}, "train"), loader_options, seed=0)
    batches = loader.batches()
    for _ in range(4 * max(1, workers) + 1):  # batches prefetched while the workers started
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += BATCH
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    print(f"random {CROP}x{CROP} crops from {WIDTH}x{HEIGHT} PNG pairs, batch {BATCH}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder), arguments.pairs)
        for workers in (0, 2):
            plain, cached = (rate(Path(folder), cache, workers, arguments.seconds) for cache in ("none", "ram"))
            print(
                f"{workers} workers: {plain:6.0f} /s decoded each time, {cached:6.0f} /s cached ({cached / plain:.1f}x)"
            )


if __name__ == "__main__":
    main()
