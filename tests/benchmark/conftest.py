"""A small data set, and costs without measuring."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from llie.benchmark import runs

COST = {
    "parameters": 0,
    "macs": None,
    "size": [256, 256],
    "latency": {"median": 0.02, "q1": 0.018, "q3": 0.023, "repeats": 10, "warmup": 2},
    "peak_memory": 5 * 2**20,
    "device": "a processor",
    "threads": 1,
}


def write_pairs(folder: Path, count: int = 4) -> Path:
    """Pairs of smooth pictures and dark ones, 40x32, in low/ and high/."""
    random = np.random.default_rng(0)
    for number in range(count):
        picture = cv2.GaussianBlur((random.random((32, 40, 3)) * 255).astype(np.uint8), (0, 0), 2)
        for side, image in (("high", picture), ("low", picture // (3 + number))):
            (folder / side).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / side / f"{number}.png"), image)
    return folder


@pytest.fixture
def pairs(tmp_path):
    """Folder of a data set."""
    return write_pairs(tmp_path / "pairs")


@pytest.fixture
def cheap(monkeypatch):
    """Costs come from here; the names of models that were measured."""
    measured = []

    def measure_cost(model, *_):
        measured.append(model.name)
        return COST | {"parameters": 1000 * len(measured)}

    monkeypatch.setattr(runs, "measure_cost", measure_cost)
    return measured
