"""What the trainer costs beside the network: all but forward, backward and optimiser step, as a share of a step.

    python benchmarks/trainer_overhead.py            # HVI-SMM, 256x256, batch 4, images from the RAM cache

The same run is timed from outside (whole steps) and from inside (the calls of the network, its loss, `backward` and the
optimiser); what lies between is the trainer's: loading, augmenting, moving, clipping, guarding, averaging, logging.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from llie.data import build_dataset, build_train_loader
from llie.engine.settings import Settings
from llie.engine.trainer import Trainer
from llie.models.supervised import SupervisedModel


class Stopwatch:
    """Adds up the time spent in the functions it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function):
        """The function, timed."""

        def timed(*arguments, **named):
            begun = time.perf_counter()
            result = function(*arguments, **named)
            self.seconds += time.perf_counter() - begun
            return result

        return timed


def make_pairs(folder: Path, count: int = 12) -> dict[str, str]:
    random = np.random.default_rng(0)
    for i in range(count):
        picture = cv2.GaussianBlur((random.random((400, 600, 3)) * 255).astype(np.uint8), (0, 0), 4)
        for side, image in (("high", picture), ("low", picture // 6)):
            (folder / side).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / side / f"{i}.png"), image)
    return {"dataroot_gt": str(folder / "high"), "dataroot_lq": str(folder / "low")}


def measure(network: str, size: int, batch: int, steps: int, ema: bool, workers: int) -> tuple[float, float]:
    """Seconds of a step, and of its part outside forward, backward and optimiser."""
    with tempfile.TemporaryDirectory() as folder:
        section = {"type": "PairedImageDataset", "gt_size": size, "use_hflip": True, "use_rot": True, "cache": "ram"}
        section |= {"batch_size_per_gpu": batch, "num_worker_per_gpu": workers, **make_pairs(Path(folder))}
        loader = build_train_loader(build_dataset(section, "train"), section, seed=0)
        model = SupervisedModel({"network_g": {"type": network}, "train": {"losses": [{"type": "L1Loss"}]}})
        settings = Settings(steps + 1, ema_decay=0.999 if ema else 0.0, clip_grad_norm=1.0, print_freq=10)
        trainer = Trainer(model, loader, settings, Path(folder) / "run")

        inside, marks = Stopwatch(), []
        model.loss = inside.wrap(model.loss)
        trainer.optimizers["g"].step = inside.wrap(trainer.optimizers["g"].step)
        backward, next_batches = torch.Tensor.backward, trainer._next
        trainer._next = lambda batches: marks.append((time.perf_counter(), inside.seconds)) or next_batches(batches)
        torch.Tensor.backward = inside.wrap(backward)
        try:
            trainer.run()
        finally:
            torch.Tensor.backward = backward
        (begun, _), (ended, _) = marks[1], marks[-1]  # the first step warms up
        work = marks[-1][1] - marks[1][1]
        return (ended - begun) / (len(marks) - 2), (ended - begun - work) / (len(marks) - 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="HVISMM")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    print(f"{options.network} {options.size}x{options.size}, batch {options.batch}, {torch.get_num_threads()} threads")
    for ema in (False, True):
        for workers in (0, 1):
            step, overhead = measure(options.network, options.size, options.batch, options.steps, ema, workers)
            what = f"{'EMA' if ema else 'no EMA'}, {workers} workers"
            print(f"{what}: step {step:.3f} s, trainer {1000 * overhead:.1f} ms, {100 * overhead / step:.2f} %")


if __name__ == "__main__":
    main()
