"""An option file as users of the official MambaLLIE repository have it: it loads unchanged, and trains."""

from __future__ import annotations

import json

import pytest
import torch

from llie import train
from llie.options import load_options
from tests.runs import make_project

OFFICIAL = """
# general settings
name: MambaLLIE_LOLv2_real
model_type: MambaLLIE
scale: 1
num_gpu: 2  # set num_gpu: 0 for cpu mode
manual_seed: 10

# dataset and data loader settings
datasets:
  train:
    name: TrainSet
    type: Dataset_PairedImage
    dataroot_gt: data/high
    dataroot_lq: data/low
    geometric_augs: true

    filename_tmpl: '{}'
    io_backend:
      type: disk

    # data loader
    use_shuffle: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 4

    ### -------------Progressive training--------------------------
    mini_batch_sizes: [4]
    iters: [300000]
    gt_size: 128
    gt_sizes: [128]
    ### ------------------------------------------------------------

    dataset_enlarge_ratio: 1
    prefetch_mode: ~

  val:
    name: ValSet
    type: Dataset_PairedImage
    dataroot_gt: data/high
    dataroot_lq: data/low
    io_backend:
      type: disk

# network structures
network_g:
  type: MambaLLIE
  nf: 48
  img_size: 128
  patch_size: 1
  embed_dim: 48
  depths: [1, 2, 2, 2, 2, 1]
  d_state: 32
  mlp_ratio: 2
  num_layer: 3

# path
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

# training settings
train:
  total_iter: 300000
  warmup_iter: -1 # no warm up
  use_grad_clip: true

  # Split 300k iterations into two cycles.
  scheduler:
    type: CosineAnnealingRestartCyclicLR
    periods: [46000, 104000]
    restart_weights: [1, 1]
    eta_mins: [0.0003, 0.000001]

  mixing_augs:
    mixup: true
    mixup_beta: 1.2
    use_identity: true

  optim_g:
    type: Adam
    lr: !!float 2e-4
    betas: [0.9, 0.999]

  # losses
  pixel_opt:
    type: L1Loss
    loss_weight: 1
    reduction: mean

# validation settings
val:
  window_size: 4
  val_freq: !!float 1e3
  save_img: false
  rgb2bgr: true
  use_image: true
  max_minibatch: 8

  metrics:
    psnr: # metric name, can be arbitrary
      type: calculate_psnr
      crop_border: 0
      test_y_channel: false
    ssim:
      type: calculate_ssim
      crop_border: 0
      test_y_channel: false

# logging settings
logger:
  print_freq: 500
  save_checkpoint_freq: !!float 1e3
  use_tb_logger: true
  wandb:
    project: low_light
    resume_id: ~

# dist training settings
dist_params:
  backend: nccl
  port: 29500
"""

SMALLER = (
    "num_gpu=0",
    "network_g={type: MambaLLIE, nf: 8, embed_dim: 8, img_size: 16, patch_size: 1, depths: [1, 1, 1, 1, 1, 1], "
    "d_state: 2, mlp_ratio: 2, num_layer: 3}",
    "datasets.train.gt_size=16",
    "datasets.train.batch_size_per_gpu=2",
    "datasets.train.num_worker_per_gpu=0",
    "train.total_iter=2",
    "val.val_freq=2",
    "logger.print_freq=1",
    "logger.use_tb_logger=false",
)


@pytest.fixture
def official(tmp_path):
    file = tmp_path / "official.yml"
    file.write_text(OFFICIAL, encoding="utf-8")
    return file


def test_it_means_what_it_meant(official, caplog):
    options = load_options(official)
    assert options["model_type"] == "SupervisedModel"
    assert options["datasets"]["train"]["type"] == "PairedImageDataset"
    assert options["datasets"]["train"]["geometric_augs"] is True
    assert options["train"]["pixel_opt"] == {"type": "L1Loss", "loss_weight": 1, "reduction": "mean"}
    assert options["train"]["optim_g"]["lr"] == 2e-4 and options["val"]["val_freq"] == 1000
    assert options["train"]["mixing_augs"] == {"mixup": True, "mixup_beta": 1.2, "use_identity": True}
    assert "the periods cover 150000 of 300000 iterations" in caplog.text  # where the official trainer stops
    for key in ("use_grad_clip", "window_size", "mini_batch_sizes", "gt_sizes", "iters"):
        assert key in caplog.text  # told that it has no effect


def test_it_trains_and_validates(official, tmp_path):
    make_project(tmp_path)
    folders = [f"datasets.{key}.dataroot_{side}={tmp_path / key / folder}"
               for key in ("train", "val") for side, folder in (("gt", "high"), ("lq", "low"))]  # fmt: skip
    overrides = [*SMALLER, *folders, f"path.experiments_root={tmp_path / 'experiments'}"]
    assert train.main(["-opt", str(official), "--force_yml", *overrides]) == 0
    run = tmp_path / "experiments" / "MambaLLIE_LOLv2_real"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["iter"] for line in lines if line["kind"] == "train"] == [1, 2]
    assert [line["iter"] for line in lines if line["kind"] == "val"] == [2]
    weights = torch.load(run / "models" / "net_g_latest.pth", weights_only=True)["params"]
    assert weights["VSSB_1.0.ss2d.A_logs"].shape == (4 * 16, 2)
