"""BasicSR's registries behind ours: found late, adapted, and never needed."""

import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from llie import bridge
from llie.errors import UserError
from llie.options import load_options
from llie.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    build,
    check_arguments,
    load_plugins,
)
from tests.needs import basicsr_only


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_core_never_imports_basicsr():
    assert "False" in run(
        "import llie, llie.options, llie.losses, llie.metrics, llie.data, llie.models, sys;"
        "llie.create_network('HVISMM'); print('basicsr' in sys.modules)"
    )


@basicsr_only
def test_their_package_imports_without_a_warning():
    run("import warnings; warnings.simplefilter('error'); from llie import bridge; bridge.basicsr()")


@basicsr_only
@pytest.mark.parametrize("name", ["SwinIR", "basicsr/SwinIR"])
def test_their_network_runs(name):
    spec = {
        "type": name,
        "upscale": 1,
        "img_size": 8,
        "window_size": 4,
        "depths": [1],
        "num_heads": [1],
        "embed_dim": 4,
    }
    network = build(ARCH_REGISTRY, spec)
    assert network(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)


@basicsr_only
def test_arguments_of_their_networks_are_checked():
    with pytest.raises(UserError, match=r"takes no argument 'num_in_chn'.*'num_in_ch'"):
        build(ARCH_REGISTRY, {"type": "EDSR", "num_in_chn": 3, "num_out_ch": 3})


@basicsr_only
def test_their_network_and_loss_train_from_an_option_file(tmp_path):
    (tmp_path / "options.yml").write_text(
        """
        name: swinir
        datasets: {train: {type: PairedImageDataset, dataroot: x}}
        network_g: {type: SwinIR, img_size: 8, window_size: 4, depths: [1], num_heads: [1], embed_dim: 4}
        train: {total_iter: 1, losses: [{type: basicsr/CharbonnierLoss, weight: 2.0}]}
        val: {metrics: {theirs: {type: basicsr/calculate_psnr, crop_border: 2}}}
        """,
        encoding="utf-8",
    )
    options = load_options(tmp_path / "options.yml")
    model = MODEL_REGISTRY.get(options["model_type"])(options)
    batch = {"lq": torch.rand(1, 3, 8, 8), "gt": torch.rand(1, 3, 8, 8)}
    loss, _ = model.loss("g", batch)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.networks["g"].parameters())
    with torch.no_grad():
        distance = (model.predict(model.networks["g"], batch) - batch["gt"]).abs().mean()
    assert loss.item() == pytest.approx(2 * distance.item())


@basicsr_only
def test_ours_come_first_and_theirs_by_prefix():
    ours, theirs = LOSS_REGISTRY.get("L1Loss"), LOSS_REGISTRY.get("basicsr/L1Loss")
    assert ours.__module__.startswith("llie.")
    assert theirs.__module__.startswith("basicsr.")


@basicsr_only
def test_their_suffixed_names_are_found():
    assert ARCH_REGISTRY.get("SRVGGNetCompact").__module__.startswith("basicsr.")


@basicsr_only
def test_an_unknown_name_is_a_user_error_with_suggestions_from_both(capsys):
    with pytest.raises(UserError, match="'SwinIR'"):
        ARCH_REGISTRY.get("SwinIr")
    with pytest.raises(UserError, match="'HVISMM'"):
        ARCH_REGISTRY.get("HVI_SMM")
    with pytest.raises(UserError, match=r"BasicSR has no network called 'SwinIr'.*'SwinIR'"):
        ARCH_REGISTRY.get("basicsr/SwinIr")
    assert "is not found" not in capsys.readouterr().out  # BasicSR's own registry prints a misleading line


def test_models_are_never_theirs():
    with pytest.raises(UserError, match="model"):
        MODEL_REGISTRY.get("basicsr/SRModel")


@basicsr_only
def test_their_metrics_measure_as_ours():
    random = np.random.default_rng(0)
    gt = random.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    pred = np.clip(gt + random.normal(0, 9, gt.shape), 0, 255).astype(np.uint8)
    for name, theirs in [("psnr", "basicsr/calculate_psnr"), ("ssim", "basicsr/calculate_ssim")]:
        ours = METRIC_REGISTRY.get(name)(pred, gt, "rgb8")
        assert METRIC_REGISTRY.get(theirs)(pred, gt, "rgb8") == pytest.approx(ours, abs=1e-9)
        cropped = METRIC_REGISTRY.get(theirs)(pred, gt, "rgb8", crop_border=4)
        assert cropped == pytest.approx(METRIC_REGISTRY.get(name)(pred, gt, "rgb8", crop_border=4), abs=1e-9)
    y8 = METRIC_REGISTRY.get("psnr")(pred, gt, "y8")  # tells RGB from BGR
    assert METRIC_REGISTRY.get("basicsr/calculate_psnr")(pred, gt, "rgb8", test_y_channel=True) == pytest.approx(y8)
    assert METRIC_REGISTRY.get("calculate_psnr_pt")(pred, gt, "rgb8") == pytest.approx(
        METRIC_REGISTRY.get("psnr")(pred, gt, "rgb8"), abs=1e-3
    )


@basicsr_only
def test_their_metrics_refuse_misspelt_arguments():
    metric = METRIC_REGISTRY.get("basicsr/calculate_psnr")
    with pytest.raises(UserError, match="'crop_border'"):
        check_arguments(metric, {"pred": None, "gt": None, "protocol": None, "crop_borders": 1}, "val.metrics.x")


@basicsr_only
def test_their_data_set_gives_our_items_reproducibly(tmp_path):
    for side in ("lq", "gt"):
        (tmp_path / side).mkdir()
        image = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / side / "1.png"), image)
    spec = {
        "type": "basicsr/PairedImageDataset",
        "dataroot_gt": str(tmp_path / "gt"),
        "dataroot_lq": str(tmp_path / "lq"),
    }
    spec |= {"gt_size": 8, "use_hflip": True, "use_rot": True}
    dataset = build(DATASET_REGISTRY, spec, phase="train")
    item = dataset[3, 0]
    assert item["lq"].shape == (3, 8, 8)
    assert torch.equal(item["lq"], item["gt"])
    assert torch.equal(item["lq"], dataset[3, 0]["lq"])
    assert any(not torch.equal(item["lq"], dataset[epoch, 0]["lq"]) for epoch in range(4, 9))
    assert torch.equal(item["lq"], pickle.loads(pickle.dumps(dataset))[3, 0]["lq"])  # as spawned workers get it


@basicsr_only
def test_a_plugin_may_use_their_decorators(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from basicsr.utils.registry import ARCH_REGISTRY\nfrom torch import nn\n"
        "@ARCH_REGISTRY.register()\nclass NetworkOfTheirKind(nn.Conv2d):\n    pass\n",
        encoding="utf-8",
    )
    load_plugins(["mine.py"], beside=tmp_path)
    assert build(ARCH_REGISTRY, {"type": "NetworkOfTheirKind", "in_channels": 3, "out_channels": 3, "kernel_size": 1})


@basicsr_only
def test_our_networks_work_in_their_registry():
    bridge.export_to_basicsr()
    from basicsr.archs import build_network

    network = build_network({"type": "HVISMM", "channels": [4, 4, 8, 8], "heads": [1, 1, 1, 1]})
    assert type(network).__name__ == "HVISMM"
    assert network.train()(torch.rand(1, 3, 16, 16)).shape == (1, 3, 16, 16)
    assert bridge.export_to_basicsr() == []  # a second call is harmless


def test_a_missing_package_is_reported(monkeypatch):
    monkeypatch.setattr(bridge.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(bridge.sys, "version_info", (3, 12))
    with pytest.raises(UserError, match=r"pip install.*basicsr"):
        bridge.find("network", "basicsr/SwinIR")
    assert bridge.find("network", "SwinIR") is None
    assert bridge.names("network") == []
    with pytest.raises(UserError, match="no network is called 'SwinIR'"):
        ARCH_REGISTRY.get("SwinIR")
    monkeypatch.setattr(bridge.sys, "version_info", (3, 13))
    with pytest.raises(UserError, match=r"Python 3\.13"):
        bridge.find("network", "basicsr/SwinIR")


def test_a_broken_installation_affects_only_what_needs_it(monkeypatch):
    def broken(name):
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(bridge.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(bridge.importlib, "import_module", broken)
    with pytest.raises(UserError, match=r"cannot be imported: libGL\.so\.1"):
        bridge.find("network", "basicsr/SwinIR")
    assert bridge.find("network", "SwinIR") is None
