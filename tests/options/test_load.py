"""Option files as users write them: what is accepted, what is filled in, and how each mistake is reported."""

import logging
from pathlib import Path

import pytest

from llie.errors import UserError
from llie.options import dump_options, load_options

MINIMAL = """
name: test
datasets:
  train: {type: PairedImageDataset, dataroot: somewhere}
  val: {type: PairedImageDataset, dataroot: somewhere}
network_g: {type: HVISMM}
train: {total_iter: 10, losses: [{type: L1Loss}]}
"""


def load(folder: Path, *overrides: str, text: str = MINIMAL, more: str = "", **arguments):
    file = folder / "options.yml"
    file.write_text(text + more, encoding="utf-8")
    return load_options(file, overrides, **arguments)


def message(folder: Path, *overrides: str, **arguments) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, *overrides, **arguments)
    return str(caught.value)


# Defaults and overrides


def test_a_minimal_file_is_filled_with_defaults(tmp_path):
    options = load(tmp_path)
    assert options["train"]["optim_g"] == {"type": "Adam", "lr": 1e-4}
    assert options["train"]["scheduler"] == {"type": "constant"}
    assert options["datasets"]["train"]["batch_size_per_gpu"] == 1
    assert options["val"]["protocols"] == ["rgb8", "rgb8-gtmean"]
    assert options["path"]["strict_load_g"] is True
    assert options["model_type"] == "SupervisedModel"


def test_defaults_are_never_shared(tmp_path):
    load(tmp_path)["train"]["optim_g"]["lr"] = 7
    assert load(tmp_path)["train"]["optim_g"]["lr"] == 1e-4


@pytest.mark.parametrize(
    ("override", "keys", "value"),
    [
        ("train.optim_g.lr=1e-3", ("train", "optim_g", "lr"), 1e-3),
        ("train:optim_g:lr=1e-3", ("train", "optim_g", "lr"), 1e-3),
        ("train.warmup_iter=-1", ("train", "warmup_iter"), -1),
        ("name=a=b", ("name",), "a=b"),
        ("path.resume_state=C:/x=1.state", ("path", "resume_state"), "C:/x=1.state"),
        ("val.save_img=true", ("val", "save_img"), True),
        ("train.losses.0.weight=2", ("train", "losses", 0, "weight"), 2),
        ("train.optim_g={type: SGD, lr: 0.1}", ("train", "optim_g"), {"type": "SGD", "lr": 0.1}),
        ("val.val_freq=", ("val", "val_freq"), None),
        ("val.val_freq=1e3", ("val", "val_freq"), 1000),
        ("path.pretrain_network_g=models/net.pth", ("path", "pretrain_network_g"), "models/net.pth"),
    ],
)
def test_overrides_are_typed_by_yaml(tmp_path, override, keys, value):
    found = load(tmp_path, override)
    for key in keys:
        found = found[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.lr", "write it like"),
        ("train..lr=1", "write it like"),
        ("train.losses.1.weight=2", "not an index"),
        ("train.losses.-1.weight=2", "not an index"),
        ("name.x=1", "which has no 'x'"),
        ("train.optim_g.lr=[", "invalid YAML"),
        ("train.optim_g.lr=!!python/name:os.system", "no Python objects"),
        ("train.total_itr=5", "train.total_itr: unknown option. Did you mean 'total_iter'"),
    ],
)
def test_wrong_overrides_are_named(tmp_path, override, told):
    text = message(tmp_path, override)
    assert told in text
    assert override in text


def test_debug_prefixes_the_name_and_does_everything_often(tmp_path):
    options = load(tmp_path, debug=True)
    assert options["name"] == "debug_test"
    assert options["val"]["val_freq"] == options["logger"]["save_checkpoint_freq"] == 8
    assert options["logger"]["print_freq"] == 1


def test_printed_options_load_to_the_same(tmp_path):
    options = load(tmp_path, "train.optim_g.lr=3e-7")
    assert load(tmp_path, text=dump_options(options)) == options


# Mistakes


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("trian: {}", "options.yml:8: trian: unknown option. Did you mean 'train'?"),
        ("val:\n  val_frq: 5", "options.yml:9: val.val_frq: unknown option. Did you mean 'val_freq'?"),
        ("val: {val_freq: often}", "val.val_freq: expected an integer or null, not 'often'"),
        ("val: {val_freq: 2.5}", "val.val_freq: expected an integer"),
        ("val: {save_img: 1}", "val.save_img: expected true or false, not 1"),
        ("val: {val_freq: 0}", "val.val_freq: 0 is too small; the minimum is 1"),
        ("val: [1]", "val: expected a mapping"),
        ("val: {metrics: {psnr: {type: psrn}}}", "no metric is called 'psrn'. Did you mean 'psnr'"),
        ("val: {metrics: {psnr: {type: psnr, crop_boarder: 4}}}", "Did you mean 'crop_border'"),
        ("val: {protocols: [rgb8, rbg8]}", "no protocol is called 'rbg8'. Did you mean 'rgb8'"),
        ("val: {controls: {alpha: 1.3}}", "val.controls: HVISMM has no control 'alpha'"),
        ("val: {controls: {alpha_s: much}}", "val.controls: expected a mapping (key: value) (each a number or a list"),
        ("val: {average: clip}", "val.average: expected one of 'image', 'folder', not 'clip'"),
        ("num_gpu: many", "num_gpu: expected an integer or one of 'auto' or a list"),
        ("num_gpu: -1", "num_gpu: -1 is too small"),
        ("model_type: SupervizedModel", "Did you mean 'SupervisedModel'"),
        ("path: {pretrain_network: x}", "Did you mean 'pretrain_network_"),
        ("plugins: [nowhere.py]", "no file"),
        ("plugins: [nowhere_at_all]", "no module named 'nowhere_at_all'"),
        ("manual_seed: !!float 1.5", "manual_seed: expected an integer"),
        ("manual_seed: 99999999999999999999", "manual_seed: 99999999999999999999 is too large"),
        ("logger: {keep_last: .nan}", "logger.keep_last: expected an integer"),
    ],
)
def test_mistakes_outside_training(tmp_path, more, told):
    assert told in message(tmp_path, more=more)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("network_g.type=HVI_SMM", "no network is called 'HVI_SMM'. Did you mean 'HVISMM'"),
        ("network_g.chanels=[4]", "HVISMM takes no argument 'chanels'. Did you mean 'channels'"),
        ("network_g.channels=4", "network_g.channels: HVISMM expects a list (each an integer), not 4"),
        ("network_g.norm=2", "HVISMM expects true or false, not 2"),
        ("network_g={nf: 3}", "network_g.type: expected the name of a registered network"),
        ("network_g={type: [HVISMM]}", "network_g.type: expected the name of a registered network"),
        ("datasets.train.type={}", "datasets.train.type: expected the name of a registered dataset"),
        ("train.losses=[L1Loss]", "train.losses.0: expected a mapping {type: ...}, not 'L1Loss'"),
        ("val.metrics={psnr: 5}", "val.metrics.psnr: expected a mapping {type: ...}, not 5"),
        ("train.scheduler={type: CosineAnnealingRestartLR, periods: 5}", "train.scheduler"),
        ("val.metrics={5: ~}", "val.metrics.5.type: expected the name of a registered metric"),
        ("network_g=HVISMM", "network_g: expected a mapping"),
        ("datasets.train.type=PairedImagesDataset", "Did you mean 'PairedImageDataset'"),
        ("datasets.train.gt_sise=3", "datasets.train.gt_sise: unknown option. Did you mean 'gt_size'"),
        ("datasets.train.gt_size=big", "datasets.train.gt_size: PairedImageDataset expects an integer"),
        ("datasets.train.batch_size_per_gpu=0", "datasets.train.batch_size_per_gpu: 0 is too small"),
        ("datasets.train.num_worker_per_gpu=-1", "datasets.train.num_worker_per_gpu: -1 is too small"),
        ("datasets.trian={type: PairedImageDataset}", "Did you mean 'train'"),
        ("datasets.val_1=5", "datasets.val_1: expected a mapping {type: ...}"),
        ("train.losses.0.type=L2Loss", "no loss is called 'L2Loss'. Did you mean 'L1Loss'"),
        ("train.losses.0.wieght=1", "train.losses.0.wieght: L1Loss has no such option. Did you mean 'weight'"),
        ("train.losses.0.weight=much", "LossTerm expects a number, not 'much'"),
        ("train.losses=[]", "train.losses: training needs a loss"),
        ("train.losses={content: {type: L1Loss, reductoin: mean}}", "train.losses.content.reductoin"),
        ("train.pixel_opt={type: L1Loss, lossweight: 1}", "Did you mean 'loss_weight'"),
        ("train.optim_g.type=AdmaW", "no optimiser is called 'AdmaW'. Did you mean 'AdamW'"),
        ("train.optim_g.type=LBFGS", "no optimiser is called 'LBFGS'"),
        ("train.optim_g.type=SparseAdam", "no optimiser is called 'SparseAdam'"),
        ("val.protocols=[]", "at least one protocol"),
        ("dist_params.backend=foo", "dist_params.backend: expected one of 'gloo'"),
        ("train.optim_g.learning_rate=1", "Adam takes no argument 'learning_rate'"),
        ("train.optim_g.lr=fast", "'train.optim_g.lr=fast': train.optim_g.lr: Adam expects a number"),
        ("network_g.gamma=x", "'network_g.gamma=x': network_g.gamma: HVISMM expects a number"),
        ("train.optim_g.lr=-1", "train.optim_g: Invalid learning rate: -1"),
        ("train.scheduler={type: CosineAnealing}", "Did you mean 'CosineAnnealingLR'"),
        ("train.scheduler={type: MultiStepLR, milestone: [1]}", "Did you mean 'milestones'"),
        ("train.total_epochs=3", "give either total_iter or total_epochs"),
        ("train.total_iter=", "give either total_iter or total_epochs"),
        ("train.total_iter=0", "train.total_iter: 0 is too small"),
        ("train.amp=fp8", "train.amp: expected one of 'bf16', 'fp16' or null, not 'fp8'"),
        ("train.random_gamma=[0.6]", "train.random_gamma: expected a list"),
        ("train.random_gamma=[1.2, 0.6]", "train.random_gamma: [1.2, 0.6] is not a range"),
        ("train.ema_decay=1.5", "train.ema_decay: 1.5 is too large"),
        ("train.ema_decay=.nan", "train.ema_decay: nan is too small"),
        ("name=../elsewhere", "name: '../elsewhere' cannot be a folder name"),
        ("name=..", "name: '..' cannot be a folder name"),
        ("datasets.val.name=a/b", "datasets.val.name: 'a/b' cannot be"),
        ("train.mixing_augs.mixup=yess", "train.mixing_augs.mixup: expected true or false"),
        ("train.mixing_augs.mix_up=true", "Did you mean 'mixup'"),
    ],
)
def test_mistakes_in_the_parts_of_a_training(tmp_path, override, told):
    assert told in message(tmp_path, override)


MISTAKEN = """
name: test
model: x
datasets:
  train: {type: PairedImageDataset, dataroot: somewhere, gt_sise: 3, use_hflp: true}
  vall: {type: PairedImageDataset, dataroot: somewhere}
network_g:
  type: HVISMM
  chanels: [4]
  gama: 0.3
train:
  total_itr: 10
  losses: [{type: L1Loss, wieght: 1}, {type: L3Loss}]
  optim_g: {type: Adan}
val: {metrics: {psnr: {crop_boarder: 4}, sim: }}
"""


def test_all_mistakes_are_reported_at_once_with_their_lines(tmp_path):
    told = message(tmp_path, text=MISTAKEN).replace(str(tmp_path / "options.yml"), "FILE").split("\n  ")
    expected = [
        "FILE:3: model: unknown option. Did you mean",
        "FILE:12: train.total_itr: unknown option. Did you mean 'total_iter'?",
        "FILE:5: datasets.train.gt_sise: unknown option. Did you mean 'gt_size'",
        "FILE:5: datasets.train.use_hflp: unknown option. Did you mean 'use_hflip'",
        "FILE:6: datasets.vall: a data set must be named",
        "FILE:9: network_g.chanels: HVISMM takes no argument 'chanels'. Did you mean 'channels'?",
        "FILE:10: network_g.gama: HVISMM takes no argument 'gama'. Did you mean 'gamma'?",
        "FILE:15: val.metrics.psnr: metric psnr: psnr takes no argument 'crop_boarder'. Did you mean 'crop_border'",
        "FILE:15: val.metrics.sim: no metric is called 'sim'. Did you mean 'ssim'",
        "FILE:11: train.total_iter: give either",
        "FILE:13: train.losses.0.wieght: L1Loss has no such option. Did you mean 'weight'?",
        "FILE:13: train.losses.1.type: no loss is called 'L3Loss'. Did you mean 'L1Loss'",
        "FILE:14: train.optim_g: no optimiser is called 'Adan'. Did you mean 'Adam'",
    ]
    assert told[0] == f"{len(expected)} mistakes in the options:"
    assert [line[: len(start)] for line, start in zip(told[1:], expected, strict=True)] == expected


def test_an_inherited_mistake_is_reported_with_its_file_and_line(tmp_path):
    (tmp_path / "base.yml").write_text("logger:\n  prnt_freq: 5\n", encoding="utf-8")
    assert "base.yml:2: logger.prnt_freq" in message(tmp_path, more="_base_: base.yml")


@pytest.mark.parametrize("key", ["name", "datasets", "network_g"])
def test_required_keys(tmp_path, key):
    lines = MINIMAL.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(key))
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    told = message(tmp_path, text="\n".join(lines[:start] + lines[end:]))
    assert f"options.yml: {key}: missing" in told or f":1: {key}: missing" in told


def test_training_needs_a_training_set_and_testing_something_to_test(tmp_path):
    text = MINIMAL.replace("  train: {type", "  test: {type").replace("  val:", "  test_2:")
    assert "training needs a training set" in message(tmp_path, text=text)
    assert set(load(tmp_path, text=text, phase="test")["datasets"]) == {"test", "test_2"}
    only_train = "\n".join(line for line in MINIMAL.split("\n") if not line.startswith("  val"))
    assert "a test needs a data set" in message(tmp_path, text=only_train, phase="test")


def test_validation_sets_are_tested_when_no_others_are_named(tmp_path):
    options = load(tmp_path, "datasets.val_1={type: UnpairedImageDataset, dataroot_lq: x}", phase="test")
    assert set(options["datasets"]) == {"train", "test", "test_1"}


def test_testing_needs_no_training_section(tmp_path):
    text = "\n".join(line for line in MINIMAL.split("\n") if not line.startswith("train:"))
    assert load(tmp_path, text=text, phase="test")["name"] == "test"


def test_null_means_none_where_it_can(tmp_path):
    options = load(tmp_path, more="val: {metrics: ~, suffix: ~}\nlogger: {print_freq: ~}\npath: ~")
    assert options["val"]["metrics"] == {}
    assert options["logger"]["print_freq"] == 100
    assert options["path"]["strict_load_g"] is True


def test_nothing_needs_to_exist_yet(tmp_path):
    assert load(tmp_path)["datasets"]["train"]["dataroot"] == "somewhere"


# Other toolkits' files

RETINEXFORMER_FAMILY = """
name: MambaLLIE_LOLv2_real
model_type: MambaLLIE
scale: 1
num_gpu: [0, 1]
manual_seed: 10
datasets:
  train:
    name: TrainSet
    type: Dataset_PairedImage
    dataroot_gt: data/LOLv2/Real_captured/Train/Normal
    dataroot_lq: data/LOLv2/Real_captured/Train/Low
    geometric_augs: true
    filename_tmpl: '{}'
    io_backend: {type: disk}
    use_shuffle: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 4
    mini_batch_sizes: [8]
    iters: [300000]
    gt_size: 128
    gt_sizes: [128]
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
    pin_memory: true
    phase: train
  val:
    name: ValSet
    type: Dataset_PairedImage
    dataroot_gt: data/LOLv2/Real_captured/Test/Normal
    dataroot_lq: data/LOLv2/Real_captured/Test/Low
    io_backend: {type: disk}
network_g:
  type: MambaLLIE
  nf: 48
  img_size: 128
  patch_size: 1
  embed_dim: 48
  depths: [1, 2, 2, 2, 2, 1]
  d_state: 32
  mlp_ratio: 2
path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
train:
  total_iter: 300000
  warmup_iter: -1
  use_grad_clip: true
  scheduler:
    type: CosineAnnealingRestartCyclicLR
    periods: [46000, 104000]
    restart_weights: [1, 1]
    eta_mins: [0.0003, 0.000001]
  mixing_augs: {mixup: true, mixup_beta: 1.2, use_identity: true}
  optim_g: {type: Adam, lr: !!float 2e-4, betas: [0.9, 0.999]}
  pixel_opt: {type: L1Loss, loss_weight: 1, reduction: mean}
val:
  window_size: 4
  val_freq: !!float 1e3
  save_img: false
  rgb2bgr: true
  use_image: false
  max_minibatch: 8
  metrics:
    psnr: {type: calculate_psnr, crop_border: 0, test_y_channel: false}
logger:
  print_freq: 500
  save_checkpoint_freq: !!float 1e3
  use_tb_logger: true
  wandb: {project: low_light, resume_id: ~}
dist_params: {backend: nccl, port: 29500}
"""


def test_a_file_of_the_retinexformer_family_runs_unchanged(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    options = load(tmp_path, text=RETINEXFORMER_FAMILY)
    assert options["model_type"] == "SupervisedModel"
    assert options["num_gpu"] == 2
    assert options["datasets"]["train"]["type"] == "PairedImageDataset"
    assert options["datasets"]["train"]["geometric_augs"] is True
    assert options["network_g"]["nf"] == 48
    assert options["train"]["optim_g"]["lr"] == 2e-4
    assert options["train"]["pixel_opt"]["loss_weight"] == 1
    assert options["val"]["val_freq"] == 1000
    assert isinstance(options["val"]["val_freq"], int)
    assert "periods cover 150000 of 300000 iterations; after them, the last rate is kept" in caplog.text
    [line] = [record.getMessage() for record in caplog.records if "without effect" in record.getMessage()]
    for key in ("scale", "train.use_grad_clip", "datasets.train.iters", "val.rgb2bgr", "logger.wandb", "pin_memory"):
        assert key in line
    for key in ("prefetch_mode", "gt_size ", "mixing_augs", "io_backend", "filename_tmpl"):
        assert key not in line  # empty, or it has an effect


MIXED_PRECISION = """
name: NTIRE
model_type: ImageCleanModel
use_amp: true
datasets:
  train: {name: TrainSet, type: Dataset_PairedImage, dataroot_gt: a, dataroot_lq: b, task: enhancement, gt_size: 2000}
  val: {name: ValSet, type: Dataset_PairedImage, dataroot_gt: c, dataroot_lq: d, task: enhancement}
network_g: {type: HVISMM}
train: {total_iter: 10, pixel_opt: {type: L1Loss}}
"""


@pytest.mark.parametrize(
    ("place", "value", "amp"),
    [("use_amp: true", "true", "fp16"), ("use_amp: true", "false", None), ("train: {", "true", "fp16")],
)
def test_use_amp_becomes_a_precision(tmp_path, caplog, place, value, amp):
    text = MIXED_PRECISION
    if place.startswith("train"):
        text = text.replace("use_amp: true\n", "").replace("train: {total", "train: {use_amp: true, total")
    caplog.set_level(logging.WARNING)
    options = load(tmp_path, text=text.replace("use_amp: true", f"use_amp: {value}"))
    assert options["train"]["amp"] == amp
    assert "datasets.train.task, datasets.val.task" in caplog.text
    assert "train.amp" in message(tmp_path, text=text.replace("use_amp: true", "use_amp: much"))


IMAGE_RESTORATION = """
name: denoising-width32
model_type: ImageRestorationModel
scale: 1
num_gpu: 8
manual_seed: 10
datasets:
  train:
    name: train-set
    type: PairedImageDataset
    dataroot_gt: datasets/pairs/gt.lmdb
    dataroot_lq: datasets/pairs/lq.lmdb
    meta_info_file: datasets/pairs/meta.txt
    filename_tmpl: '{}'
    io_backend: {type: lmdb}
    gt_size: 256
    use_flip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 8
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
  val: {name: val-set, type: PairedImageDataset, dataroot_gt: a, dataroot_lq: b, io_backend: {type: disk}}
  test0: {name: test-set, type: PairedImageDataset, dataroot_gt: c, dataroot_lq: d}
network_g: {type: HVISMM}
path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
train:
  optim_g: {type: AdamW, lr: !!float 1e-3, weight_decay: 0., betas: [0.9, 0.9]}
  scheduler: {type: TrueCosineAnnealingLR, T_max: 200000, eta_min: !!float 1e-7}
  total_iter: 200000
  warmup_iter: -1
  mixup: false
  pixel_opt: {type: PSNRLoss, loss_weight: 1, reduction: mean}
val:
  val_freq: !!float 2e4
  save_img: false
  grids: true
  trans_num: 1
  metrics:
    psnr: {type: calculate_psnr, crop_border: 0, test_y_channel: false}
    ssim: {type: calculate_ssim, crop_border: 0, test_y_channel: false}
logger:
  print_freq: 200
  save_checkpoint_freq: !!float 5e3
  use_tb_logger: true
  wandb: {project: ~, resume_id: ~}
dist_params: {backend: nccl, port: 29500}
"""


def test_a_file_of_the_image_restoration_family_runs_unchanged(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    options = load(tmp_path, text=IMAGE_RESTORATION)
    train = options["datasets"]["train"]
    assert (train["use_hflip"], train["use_rot"], train["meta_info_file"]) == (True, True, "datasets/pairs/meta.txt")
    assert options["datasets"]["test0"]["dataroot_gt"] == "c"
    assert options["train"]["mixing_augs"]["mixup"] is False
    assert options["train"]["pixel_opt"]["type"] == "PSNRLoss"
    [line] = [record.getMessage() for record in caplog.records]
    assert "val.grids (images are enhanced in one piece)" in line and "val.trans_num" in line
    options = load(tmp_path, "train.mixup=true", text=IMAGE_RESTORATION, phase="test")
    assert options["train"]["mixing_augs"] == {"mixup": True, "mixup_beta": 1.2, "use_identity": False}
    assert set(options["datasets"]) == {"train", "val", "test0"}


def test_remarks_are_made_by_one_process(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    load(tmp_path, text=RETINEXFORMER_FAMILY)
    assert not caplog.records


def test_its_frame_sets_too(tmp_path):
    frames = """{name: TrainSet, type: Dataset_SMIDImage, dataroot_gt: SMID/SMID_Long_np, dataroot_lq: SMID/SMID_LQ_np,
      mode: SMID, interval_list: [1], random_reverse: false, border_mode: false, cache_keys: ~, cache_data: true,
      padding: new_info, train_size: [960, 512], use_flip: true, use_rot: true, N_frames: 5, gt_size: 256}"""
    options = load(tmp_path, f"datasets.train={frames}")
    assert options["datasets"]["train"]["type"] == "SMIDDataset"
    assert options["datasets"]["train"]["use_flip"] is True


def test_keys_of_the_lfpv_dialect(tmp_path):
    text = MINIMAL.replace("network_g: {type: HVISMM}", "network_G: {which_model_G: HVISMM}")
    options = load(tmp_path, text=text, more="path: {pretrain_model_G: a.pth, strict_load: false}\ngpu_ids: [0, 1, 2]")
    assert options["network_g"] == {"type": "HVISMM"}
    assert options["path"]["pretrain_network_g"] == "a.pth"
    assert options["path"]["strict_load_g"] is False
    assert options["num_gpu"] == 3


OLDER = """
name: some_run
model: {model}
distortion: sr
scale: 1
gpu_ids: [0]
datasets:
  train: {{name: {data}, mode: video_samesize, dataroot_GT: a, dataroot_LQ: b, GT_size: 160, n_workers: 3}}
network_G: {{which_model_G: {network}, nf: 64}}
path: {{pretrain_model_G: ~}}
train: {{lr_G: !!float 4e-4, niter: 600000, pixel_criterion: cb}}
"""


@pytest.mark.parametrize(
    ("model", "network", "data", "recipe"),
    [
        ("video_base4_m", "low_light_transformer", "SDSD_indoor", "options/train/snr_aware/SDSD_indoor.yml"),
        ("video_base4_m", "low_light_transformer", "LOL-v2-real", "options/train/snr_aware/LOLv2_real.yml"),
        ("video_base3_refine2", "low_light_transformer4", "SMID", "options/train/SMID.yml"),
        ("base", "LEDNet", "LOL-Blur", "options/train/LOLBlur.yml"),
        ("base", "EDVR", "Vimeo90K", "options/train/custom.yml"),
    ],
)
def test_the_older_dialect_is_named_once_with_our_recipe(tmp_path, model, network, data, recipe):
    text = OLDER.format(model=model, network=network, data=data)
    told = message(tmp_path, text=text)
    assert "older dialect" in told and f"start from {recipe} and" in told and "\n" not in told
    assert (Path(__file__).parents[2] / recipe).is_file()
    assert recipe.replace("train", "test") in message(tmp_path, text=text, phase="test")


def test_both_names_of_one_key_are_an_error(tmp_path):
    told = message(tmp_path, more="path: {pretrain_model_G: a.pth, pretrain_network_g: b.pth}")
    assert "another name for path.pretrain_network_g" in told


def test_a_preset_stands_for_its_arguments(tmp_path):
    options = load(tmp_path, "network_g={type: mamballie_48, d_state: 16}")
    assert options["network_g"]["type"] == "MambaLLIE"
    assert (options["network_g"]["nf"], options["network_g"]["d_state"]) == (48, 16)


@pytest.mark.parametrize("optimiser", ["AdamW", "SGD", "RMSprop", "Adamax"])
def test_every_optimiser_of_torch(tmp_path, optimiser):
    spec = f"{{type: {optimiser}, lr: 2e-4, weight_decay: 1e-4}}"
    assert load(tmp_path, f"train.optim_g={spec}")["train"]["optim_g"]["lr"] == 2e-4


def test_a_network_in_the_users_own_file(tmp_path):
    (tmp_path / "my_network.py").write_text(
        "from torch import nn\nfrom llie.registry import ARCH_REGISTRY\n\n\n"
        "@ARCH_REGISTRY.register()\nclass MyOwnNetwork(nn.Module):\n"
        "    def __init__(self, width: int = 8):\n        super().__init__()\n",
        encoding="utf-8",
    )
    options = load(tmp_path, "network_g={type: MyOwnNetwork, width: 4}", more="plugins: [my_network.py]")
    assert options["network_g"]["width"] == 4
    assert "'width'" in message(tmp_path, "network_g={type: MyOwnNetwork, widht: 4}", more="plugins: [my_network.py]")
