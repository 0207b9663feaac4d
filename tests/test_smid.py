"""The two commands on SMID's layout, as a user types them: LFPV learns from a small tree of it, and is measured."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from llie import test
from llie.options import load_options
from tests.conftest import REPOSITORY

SMALL = [
    "num_gpu=0",
    "network_g.nf=8",
    "network_g.layers=1",
    "network_g.hidden_width=8",
    "train.losses.perceptual.weight=0",  # would need the weights of VGG19
    "datasets.train.train_size=[48,32]",
    "datasets.train.gt_size=32",
    "datasets.train.batch_size_per_gpu=2",
    "datasets.train.num_worker_per_gpu=0",
    "train.total_iter=2",
    "val.val_freq=2",
    "val.metrics={psnr: {type: psnr}, ssim: {type: ssim}}",
]


@pytest.fixture
def tree(tmp_path):
    """`SMID_LQ_np`, `SMID_Long_np` and `test_list.txt`, as in the pack; not every long exposure is a reference."""
    random = np.random.default_rng(0)
    for scene in ("0001", "0002", "0007", "0009"):
        for side, names in (
            ("SMID_LQ_np", ("0001", "0002", "0003")),
            ("SMID_Long_np", ("0001.ARW", "0001", "half0001")),
        ):
            (tmp_path / side / scene).mkdir(parents=True)
            for name in names:
                frame = random.integers(0, 60 if side == "SMID_LQ_np" else 256, (40, 56, 3), dtype=np.uint8)
                np.save(tmp_path / side / scene / f"{name}.npy", frame)
    (tmp_path / "test_list.txt").write_text("0007\n0009\n", encoding="utf-8")
    return tmp_path


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def test_train_and_test_on_the_layout_of_smid(tree):
    here = [f"datasets.{name}.dataroot={tree}" for name in ("train", "val")]
    here += [f"path.experiments_root={tree}/experiments", f"path.results_root={tree}/results"]
    launch = ["-m", "torch.distributed.launch", "--nproc_per_node", "1", "--master_port", str(free_port())]
    options = str(REPOSITORY / "options" / "train" / "SMID.yml")
    words = [str(REPOSITORY / "llie" / "train.py"), "-opt", options, "--launcher", "pytorch", "--force_yml"]
    command = [sys.executable, *launch, *words, *SMALL, *here]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    weights = tree / "experiments" / "LFPV_SMID" / "models" / "net_g_best.pth"
    logged = (tree / "experiments" / "LFPV_SMID" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = [json.loads(line) for line in logged if json.loads(line)["kind"] == "train"][-1]
    assert {"fused", "plain"} <= last.keys()

    options = str(REPOSITORY / "options" / "test" / "SMID.yml")
    network = [word for word in SMALL if word.startswith(("network_g", "num_gpu", "val.metrics"))]
    words = ["-opt", options, "--force_yml", *network, *here, f"path.pretrain_network_g={weights}"]
    assert test.main(words) == 0
    rows = (tree / "results" / "LFPV_SMID" / "SMID.csv").read_text(encoding="utf-8").splitlines()
    assert len([row for row in rows if row.startswith(("0007", "0009"))]) == 6
    assert not [row for row in rows if row.startswith(("0001/", "0002/"))]


def test_the_recipe_is_the_published_one():
    options = load_options(REPOSITORY / "options" / "train" / "SMID.yml")
    train, dataset = options["train"], options["datasets"]["train"]
    assert (dataset["gt_size"], dataset["batch_size_per_gpu"], dataset["use_rot"]) == (256, 12, True)
    assert train["optim_g"] == {"type": "Adam", "lr": 4e-4, "betas": [0.9, 0.99], "fused": True}
    assert (train["total_iter"], train["scheduler"]["eta_min"]) == (200000, 1e-7)
    terms = [(loss["type"], loss.get("weight", 1.0), loss.get("pred", "out")) for loss in train["losses"].values()]
    published = [("CharbonnierLoss", 1.0, "out"), ("CharbonnierLoss", 1.0, "plain"), ("PerceptualLoss", 0.1, "plain")]
    assert sorted(terms) == sorted(published)
    assert all(loss["reduction"] == "sum" for loss in train["losses"].values())
