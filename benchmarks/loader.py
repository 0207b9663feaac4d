"""Crops per second of the training loader: llie, BasicSR (where installed), and a plain loop over `torch.utils.data`.

    python benchmarks/loader.py [--pairs 64] [--seconds 1.5] [--rounds 3] [--workers 0 1 2]

All of them give batches of random crops with the same flips from the same PNG files: cold (each file is dropped from
the system's cache after it was read), and warm (all files in that cache); llie also from decoded images (`cache: ram`).
They take turns. Then the memory that a worker has for itself, with that cache and without.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from llie.data import build_dataset, build_train_loader, write_image

WIDTH, HEIGHT, CROP, BATCH = 600, 400, 256, 8
Batches = Iterator[dict[str, Any]]


def write_pairs(folder: Path, count: int) -> None:
    """Pairs of 600x400 PNGs with noise, which makes real ones slow to decode."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = cv2.resize(random.random((20, 30, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        noisy = 255 * coarse + random.normal(0, 3, (HEIGHT, WIDTH, 3))
        high = np.clip(noisy, 0, 255).astype(np.uint8)
        write_image(folder / "high" / f"{number}.png", high)
        write_image(folder / "low" / f"{number}.png", high // 10)


def of_llie(folder: Path, workers: int, cache: str = "none", crop: int = CROP, batch: int = BATCH) -> Batches:
    options = {"type": "PairedImageDataset", "dataroot": str(folder), "gt_size": crop, "use_hflip": True}
    dataset = build_dataset({**options, "use_rot": True, "cache": cache}, "train")
    return build_train_loader(dataset, {"batch_size_per_gpu": batch, "num_worker_per_gpu": workers}, 0).batches()


def of_basicsr(folder: Path, workers: int) -> Batches:
    from llie.bridge import basicsr

    basicsr()
    from basicsr.data import build_dataloader, build_dataset
    from basicsr.data.data_sampler import EnlargedSampler
    from basicsr.data.prefetch_dataloader import CPUPrefetcher

    options = {
        "name": "pairs", "type": "PairedImageDataset", "phase": "train", "scale": 1, "io_backend": {"type": "disk"},
        "dataroot_gt": str(folder / "high"), "dataroot_lq": str(folder / "low"), "gt_size": CROP, "use_hflip": True,
        "use_rot": True, "batch_size_per_gpu": BATCH, "num_worker_per_gpu": workers,
    }  # fmt: skip
    dataset = build_dataset(options)
    sampler = EnlargedSampler(dataset, 1, 0, ratio=1000)
    batches = CPUPrefetcher(build_dataloader(dataset, options, num_gpu=0, sampler=sampler, seed=0))
    batches.reset()
    return iter(batches.next, None)


class Plain(Dataset):
    """What one writes in ten lines."""

    def __init__(self, folder: Path):
        self.low, self.high = (sorted((folder / side).iterdir()) for side in ("low", "high"))

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, index: int) -> dict[str, Any]:
        paths = self.low[index], self.high[index]
        images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
        top, left = (int(torch.randint(side - CROP + 1, ())) for side in images[0].shape[:2])
        images = [image[top : top + CROP, left : left + CROP] for image in images]
        across, down, turned = torch.rand(3) < 0.5
        images = [image[:, ::-1] if across else image for image in images]
        images = [image[::-1] if down else image for image in images]
        images = [image.transpose(1, 0, 2) if turned else image for image in images]
        low, high = (torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255 for image in images)
        return {"lq": low, "gt": high, "lq_path": str(paths[0]), "gt_path": str(paths[1])}


def plain(folder: Path, workers: int) -> Batches:
    loader = DataLoader(Plain(folder), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return itertools.chain.from_iterable(itertools.repeat(loader))


def rate(batches: Batches, workers: int, seconds: float, forget: bool = False) -> float:
    """Crops per second, without the batches that are ready at the start; `forget` empties the system's cache."""
    for _ in range(4 * workers + 1):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        batch = next(batches)
        count += len(batch["lq"])
        if forget:
            drop(batch)
    return count / (time.perf_counter() - start)


def drop(batch: dict[str, Any]) -> None:
    """Drop the files of a batch from the system's cache, so that they are cold in the next epoch."""
    for path in (*batch["lq_path"], *batch["gt_path"]):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def compare(folder: Path, workers: int, seconds: float, rounds: int) -> None:
    """Print the rates with this number of workers; llie from warm files is the unit of the ratios."""
    loaders: dict[str, Callable[[], Batches]] = {"llie": lambda: of_llie(folder, workers)}
    if importlib.util.find_spec("basicsr"):
        loaders["BasicSR"] = lambda: of_basicsr(folder, workers)
    loaders["plain loop"] = lambda: plain(folder, workers)
    ram, found = of_llie(folder, workers, "ram"), {}
    streams = {name: make() for name, make in loaders.items()}
    for batches in streams.values():  # every file is read once, and so in the system's cache
        for _ in range(-(-len(Plain(folder)) // BATCH)):
            next(batches)
    for forget in (False, True):
        for _ in range(rounds):
            for name, batches in streams.items():
                key = f"{name}, {'cold' if forget else 'warm'}"
                found.setdefault(key, []).append(rate(batches, workers, seconds, forget))
            if not forget:
                found.setdefault("llie, cache: ram", []).append(rate(ram, workers, seconds))
    for key, rates in found.items():
        unit = found["llie, cold" if "cold" in key else "llie, warm"]
        ratio = statistics.median(own / other for own, other in zip(rates, unit, strict=True))
        print(f"  {workers} workers   {key:<18} {statistics.median(rates):6.0f} /s   {ratio:5.2f}x llie", flush=True)


def private_mib(process: Any) -> float:
    """The memory that a process shares with no other, in MiB."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def memory(folder: Path, method: str) -> None:
    """Print what each of two workers has for itself after 20 batches; Linux only."""
    multiprocessing.set_start_method(method, force=True)
    found = {}
    for cache in ("none", "ram"):
        before = set(multiprocessing.active_children())
        batches = of_llie(folder, 2, cache)
        for _ in range(20):
            next(batches)
        workers = set(multiprocessing.active_children()) - before
        found[cache] = statistics.mean(map(private_mib, workers))
        batches.close()  # type: ignore[attr-defined]
    print(
        f"  {method:<10} without cache {found['none']:6.0f} MiB   with cache: ram {found['ram']:6.0f} MiB", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_pairs(place, arguments.pairs)
        print(f"random {CROP}x{CROP} crops from {WIDTH}x{HEIGHT} PNG pairs, batch {BATCH}, {os.cpu_count()} cores")
        for workers in arguments.workers:
            compare(place, workers, arguments.seconds, arguments.rounds)
        size = 2 * arguments.pairs * WIDTH * HEIGHT * 3 / 2**20
        print(f"memory of a worker alone; the decoded images are {size:.0f} MiB")
        for method in multiprocessing.get_all_start_methods():
            memory(place, method)


if __name__ == "__main__":
    main()
