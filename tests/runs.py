"""A whole project in a folder, so small that training runs in a second: pictures and an option file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml


def make_project(folder: Path, **changes: Any) -> Path:
    """Write pictures and the option file `run.yml`; returns the option file.

    Args:
        folder: where to.
        **changes: options by path with `__` for dots (`train__total_iter=5`).
    """
    random = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3)):
        for i in range(count):
            picture = cv2.GaussianBlur((random.random((24, 28, 3)) * 255).astype(np.uint8), (0, 0), 2)
            for side, image in (("high", picture), ("low", picture // 5)):
                (folder / split / side).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / split / side / f"{i}.png"), image)

    def pairs(split: str) -> dict[str, Any]:
        sides = {"dataroot_gt": str(folder / split / "high"), "dataroot_lq": str(folder / split / "low")}
        return {"name": split, "type": "PairedImageDataset", **sides}

    options: dict[str, Any] = {
        "name": "run",
        "num_gpu": 0,
        "manual_seed": 3,
        "plugins": [str(Path(__file__).with_name("plugin.py"))],
        "datasets": {
            "train": pairs("train") | {"gt_size": 16, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0},
            "val": pairs("val"),
        },
        "network_g": {"type": "TinyNet"},
        "path": {"experiments_root": str(folder / "experiments"), "results_root": str(folder / "results")},
        "train": {
            "total_iter": 24,
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 0.01},
            "scheduler": {"type": "cosine"},
            "losses": [{"type": "L1Loss"}],
            "mixing_augs": {"mixup": True},
        },
        "val": {"val_freq": 6, "metrics": {"psnr": {"type": "psnr"}}},
        "logger": {"print_freq": 2, "save_checkpoint_freq": 3, "use_tb_logger": False},
    }
    for path, value in changes.items():
        *sections, key = path.split("__")
        target = options
        for section in sections:
            target = target.setdefault(section, {})
        target[key] = value
    file = folder / "run.yml"
    file.write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
    return file


def final_weights(folder: Path, name: str = "run", kind: str = "params") -> dict[str, torch.Tensor]:
    """What a run in that project ended with."""
    file = folder / "experiments" / name / "models" / "net_g_latest.pth"
    return torch.load(file, weights_only=True)[kind]


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Equal bit for bit."""
    assert ours.keys() == theirs.keys()
    different = [key for key in ours if not torch.equal(ours[key], theirs[key])]
    assert not different
