"""Training on dark photographs alone: from a folder to enhanced pictures, and what is reported when it cannot work."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from llie import cli, train
from llie import test as measuring
from llie.data.readers import read_image, write_image
from llie.errors import UserError
from llie.options import load_options

LOSSES = [
    {"type": "IlluminationSmoothnessLoss", "weight": 200, "pred": "curves"},
    {"type": "SpatialConsistencyLoss"},
    {"type": "ColourConstancyLoss", "weight": 5},
    {"type": "ExposureControlLoss", "weight": 10},
]


def photographs(folder: Path, count: int) -> str:
    """Textured dark pictures, large enough for NIQE."""
    random = np.random.default_rng(0)
    for number in range(count):
        picture = cv2.GaussianBlur(random.random((100, 200, 3)), (0, 0), 1.5)
        dark = (255 * 0.25 * (picture - picture.min()) / np.ptp(picture)).astype(np.uint8)
        write_image(folder / f"{number}.png", dark)
    return str(folder)


@pytest.fixture
def project(tmp_path) -> Path:
    """The option file of a user who has nothing but dark photographs."""
    photographs(tmp_path / "my_photos", 4)
    options = {
        "name": "mine",
        "num_gpu": 0,
        "datasets": {
            "train": {
                "type": "UnpairedImageDataset",
                "dataroot_lq": str(tmp_path / "my_photos"),
                "train_size": [48, 32],
                "batch_size_per_gpu": 2,
                "num_worker_per_gpu": 0,
                "cache": "ram",
            },
            "val": {"type": "UnpairedImageDataset", "dataroot_lq": photographs(tmp_path / "others", 2)},
        },
        "network_g": {"type": "ZeroDCE", "width": 8},
        "path": {"experiments_root": str(tmp_path / "experiments"), "results_root": str(tmp_path / "results")},
        "train": {"total_iter": 40, "optim_g": {"type": "Adam", "lr": 0.01}, "losses": LOSSES},
        "val": {"val_freq": 20, "metrics": {"psnr": {"type": "psnr"}, "niqe": {"type": "niqe"}}},
        "logger": {"use_tb_logger": False, "print_freq": 1},
    }
    file = tmp_path / "mine.yml"
    file.write_text(yaml.safe_dump(options), encoding="utf-8")
    return file


def test_from_a_folder_of_dark_photographs_to_brighter_ones(project, tmp_path):
    assert train.main(["-opt", str(project)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "experiments/mine/metrics.jsonl").read_text().splitlines()]
    totals = [line["loss_g"] for line in lines if "loss_g" in line]
    assert len(totals) == 40 and np.mean(totals[-5:]) < 0.7 * np.mean(totals[:5])
    scores = [line["niqe/rgb8"] for line in lines if "niqe/rgb8" in line]
    assert len(scores) == 2 and np.isfinite(scores).all()
    assert not any("psnr/rgb8" in line for line in lines), "there is no reference to compare with"

    best = tmp_path / "experiments/mine/models/net_g_best.pth"
    words = ["enhance", str(tmp_path / "others"), "-o", str(tmp_path / "out"), "--model", str(best), "--device", "cpu"]
    assert cli.main(words) == 0
    for name in ("0.png", "1.png"):
        before, after = read_image(tmp_path / "others" / name), read_image(tmp_path / "out" / name)
        assert after.mean() > 1.5 * before.mean()

    assert measuring.main(["-opt", str(project), "--force_yml", f"path.pretrain_network_g={best}"]) == 0
    measured = json.loads((tmp_path / "results/mine/test.json").read_text())["means"]
    assert measured["niqe/rgb8"] == pytest.approx(min(scores), rel=1e-4), "the lowest NIQE is the best"


def test_images_are_resized_in_training_as_pillow_does(project, tmp_path):
    from PIL import Image

    from llie.data import build_dataset

    section = load_options(project)["datasets"]["train"]
    dataset = build_dataset(section, "train")
    assert set(dataset[0]) == {"lq", "lq_path"}
    with Image.open(tmp_path / "my_photos" / "0.png") as image:
        expected = np.asarray(image.resize((48, 32), Image.Resampling.LANCZOS))
    assert np.array_equal((dataset[0]["lq"] * 255).round().numpy().transpose(1, 2, 0), expected)
    assert build_dataset(section, "val")[0]["lq"].shape == (3, 100, 200)

    deep = read_image(tmp_path / "my_photos" / "0.png").astype(np.uint16) * 257
    write_image(tmp_path / "my_photos" / "0.png", deep)
    sixteen = build_dataset(section, "train")[0]["lq"]
    assert (sixteen * 255 - expected.transpose(2, 0, 1)).abs().max() < 1.01, "8 bit rounds twice"


@pytest.mark.parametrize(
    ("loss", "known"),
    [
        ("{type: L1Loss}", False),
        ("{type: SpatialConsistencyLoss, target: gt}", False),
        ("{type: HVILoss, perceptual: 0}", False),
        ("{type: L1Loss, target: lq}", True),
        ("{type: L1Loss, weight: 0}", True),
        ("{type: TVLoss}", True),
    ],
)
def test_losses_that_need_a_reference_are_reported_before_anything_is_built(project, loss, known):
    given = f"train.losses=[{loss}]"
    if known:
        assert load_options(project, [given])
        return
    with pytest.raises(
        UserError, match=r"train\.losses\.0: .* compares with the reference gt, which Unpaired.*target: lq"
    ):
        load_options(project, [given])


def test_old_loss_keys_are_checked_as_well(project):
    with pytest.raises(UserError, match=r"train\.pixel_opt: L1Loss compares with the reference gt"):
        load_options(project, ["train.losses=[{type: TVLoss}]", "train.pixel_opt={type: L1Loss}"])


def test_a_crop_larger_than_a_photograph_is_named(project):
    with pytest.raises(UserError, match=r"is 48x32, less than gt_size 40"):
        train.main(["-opt", str(project), "--force_yml", "datasets.train.gt_size=40"])


def test_train_size_is_checked(project):
    with pytest.raises(UserError, match=r"train_size: \[48, 0\] is not a width and height"):
        train.main(["-opt", str(project), "--force_yml", "datasets.train.train_size=[48, 0]"])


def test_adversarial_training_needs_real_images(project):
    words = [
        "model_type=AdversarialModel",
        "network_d={type: DRBNDiscriminator}",
        "train.optim_d={type: Adam, lr: 1e-4}",
    ]
    with pytest.raises(UserError, match=r"needs real images: .*train_hq"):
        train.main(["-opt", str(project), "--force_yml", *words])
