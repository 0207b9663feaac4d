"""The test command: tables, files, and messages about missing things."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from llie import test as measuring
from llie import train
from llie.errors import UserError
from tests.runs import make_project


@pytest.fixture
def trained(tmp_path) -> Path:
    """A project with a short run, and `test.yml` for it."""
    options = make_project(tmp_path, train__total_iter=3)
    train.main(["-opt", str(options)])
    given = yaml.safe_load(options.read_text())
    weights = tmp_path / "experiments" / "run" / "models" / "net_g_latest.pth"
    for section in ("train", "logger"):
        del given[section]
    del given["val"]["val_freq"]
    given["datasets"] = {"test": given["datasets"]["val"], "test_1": given["datasets"]["val"] | {"name": "again"}}
    given["path"]["pretrain_network_g"] = str(weights)
    given["val"] |= {"save_img": True, "metrics": {"psnr": {"type": "psnr"}, "ssim": {"type": "ssim"}}}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(given), encoding="utf-8")
    return tmp_path


def test_tables_figures_and_pictures(trained, capsys):
    assert measuring.main(["-opt", str(trained / "test.yml")]) == 0
    shown = capsys.readouterr().out
    for word in ("val: 3 images", "again: 3 images", "rgb8-gtmean", "psnr", "ssim", "input"):
        assert word in shown
    results = trained / "results" / "run"
    rows = list(csv.DictReader((results / "val.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == ["0", "1", "2"]
    mean = json.loads((results / "val.json").read_text())["means"]["psnr/rgb8"]
    assert mean == pytest.approx(np.mean([float(row["psnr/rgb8"]) for row in rows]))
    assert cv2.imread(str(results / "images" / "val" / "1.png")).shape == (24, 28, 3)


def test_the_averaged_weights_are_measured(trained):
    """EMA runs are tested with their average, as BasicSR does; the figures of training agree."""
    measuring.main(["-opt", str(trained / "test.yml")])
    logged = [json.loads(line) for line in (trained / "experiments/run/metrics.jsonl").read_text().splitlines()]
    measured = json.loads((trained / "results/run/val.json").read_text())["means"]
    assert measured["psnr/rgb8"] == pytest.approx(logged[-1]["psnr/rgb8"], rel=1e-6)


def means_of(results: Path) -> dict[str, float]:
    return json.loads((results / "val.json").read_text())["means"]


def test_figures_of_pictures_in_strips_are_those_of_whole_pictures(trained, capsys, monkeypatch):
    words = ["-opt", str(trained / "test.yml")]
    measuring.main(words)
    whole, pictures = means_of(trained / "results/run"), trained / "results/run/images/val"
    before = cv2.imread(str(pictures / "1.png")).astype(int)
    assert "in strips" not in capsys.readouterr().err
    monkeypatch.setattr("llie.strips.memory.free_memory", lambda device: 2**16)
    measuring.main(words)
    assert capsys.readouterr().err.count("works in strips of rows") == 1
    assert means_of(trained / "results/run") == pytest.approx(whole, rel=1e-4)
    assert abs(cv2.imread(str(pictures / "1.png")) - before).max() <= 1


def test_validation_in_strips_gives_the_figures_of_whole_pictures(tmp_path, monkeypatch, caplog):
    figures = []
    for free in (2**34, 2**16):
        monkeypatch.setattr("llie.strips.memory.free_memory", lambda device, free=free: free)
        folder = tmp_path / str(free)
        folder.mkdir()
        train.main(["-opt", str(make_project(folder, train__total_iter=3))])
        assert caplog.text.count("works in strips of rows") == (free == 2**16)  # told once, however many validations
        figures.append(json.loads((folder / "experiments/run/metrics.jsonl").read_text().splitlines()[-1])["psnr/rgb8"])
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)


def test_missing_weights_are_named(trained):
    words = ["-opt", str(trained / "test.yml"), "--force_yml"]
    with pytest.raises(UserError, match=r"experiments/run/models/net_g_latest\.pth"):
        measuring.main([*words, "path.pretrain_network_g=null"])
    with pytest.raises(UserError, match=r"path\.pretrain_network_g: .*gone\.pth.*train it first"):
        measuring.main([*words, f"path.pretrain_network_g={trained / 'gone.pth'}"])


def test_a_broken_network_has_no_score(trained):
    broken = torch.load(trained / "experiments/run/models/net_g_latest.pth", weights_only=True)
    broken["params_ema"]["last.bias"][0] = float("nan")
    torch.save(broken, trained / "broken.pth")
    words = ["-opt", str(trained / "test.yml"), "--force_yml", f"path.pretrain_network_g={trained / 'broken.pth'}"]
    with pytest.raises(UserError, match="NaN"):
        measuring.main(words)


def test_missing_data_is_named(trained):
    missing = trained / "nowhere"
    words = ["-opt", str(trained / "test.yml"), "--force_yml", f"datasets.test.dataroot_lq={missing}"]
    with pytest.raises(UserError, match="nowhere"):
        measuring.main(words)
