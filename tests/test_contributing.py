"""The worked example of CONTRIBUTING.md works as it stands: its network trains and enhances."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from llie import cli
from llie.data.readers import read_image, write_image
from llie.registry import ARCH_REGISTRY

DOCUMENT = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"


def code_block(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    return block


@pytest.fixture
def example(tmp_path, monkeypatch):
    """A folder with the example's two files and pairs where its option file expects them."""
    monkeypatch.setattr(ARCH_REGISTRY, "_entries", dict(iter(ARCH_REGISTRY)))
    monkeypatch.chdir(tmp_path)
    for suffix, language in ((".py", "python"), (".yml", "yaml")):
        (tmp_path / f"my_network{suffix}").write_text(code_block(language), encoding="utf-8")
    random = np.random.default_rng(0)
    for split, number in [("train", n) for n in range(4)] + [("val", 0)]:
        bright = random.integers(60, 255, (100, 110, 3), dtype=np.uint8)
        write_image(f"datasets/demo/{split}/high/{number}.png", bright)
        write_image(f"datasets/demo/{split}/low/{number}.png", bright // 8)
    return tmp_path


def test_the_example_trains_and_enhances(example):
    overrides = ["train.total_iter=2", "num_gpu=0", "val.val_freq=2", "datasets.train.num_worker_per_gpu=0"]
    runs = example / "experiments"
    assert cli.main(["train", "-opt", "my_network.yml", "--output", str(runs), "--force_yml", *overrides]) == 0
    weights = torch.load(runs / "my_network" / "models" / "net_g_latest.pth", weights_only=True)["params"]
    assert "exponent.0.weight" in weights

    words = ["enhance", "datasets/demo/val/low", "-o", "out", "--model", "my_network", "--device", "cpu"]
    assert cli.main([*words, "--plugin", "my_network.py"]) == 0
    enhanced, dark = read_image("out/0.png"), read_image("datasets/demo/val/low/0.png")
    assert enhanced.shape == dark.shape
    assert enhanced.mean() > dark.mean()
