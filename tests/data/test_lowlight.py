"""The synthetic low light follows its formula, and the demo's data are what its docstring says."""

import numpy as np
import pytest

from llie.data import build_dataset, demo, read_image
from llie.data.lowlight import LowLight, linear_to_srgb, srgb_to_linear
from llie.errors import UserError


def test_srgb_is_the_standards_curve_and_back():
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=2e-6)
    assert srgb_to_linear(np.float32(0.5)) == pytest.approx(0.21404, abs=1e-5)


def test_without_noise_it_is_the_formula(picture):
    image = picture(1)
    exact = LowLight(exposure=(0.1, 0.1), gamma=(1.2, 1.2), white_balance=0, shot=0, read=0)
    linear = 0.1 * ((np.maximum(image / 255, 0.04046) + 0.055) / 1.055) ** 2.4
    linear = np.where(image / 255 <= 0.04045, image / 255 / 12.92 * 0.1, linear)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    dark = exact(image, np.random.default_rng(0))
    assert dark.dtype == np.uint8
    assert np.abs(dark.astype(int) - np.rint(255 * encoded**1.2)).max() <= 1


@pytest.mark.parametrize(
    "ranges", [{"exposure": (0, 1)}, {"gamma": (1.2, 0.8)}, {"white_balance": -1}, {"shot": -1}, {"read": -1}]
)
def test_invalid_ranges(ranges):
    with pytest.raises(UserError, match=f"{next(iter(ranges))}: .* is not a range"):
        LowLight(**ranges)


def test_noise_has_the_stated_variance():
    grey = np.full((200, 200, 3), 128, np.uint8)
    shot, read, exposure = 4e-3, 5e-3, 0.5
    noisy = LowLight((exposure, exposure), (1, 1), 0, shot, read)(grey, np.random.default_rng(0))
    light = srgb_to_linear(noisy.astype(np.float32) / 255)
    mean = exposure * srgb_to_linear(np.float32(128 / 255))
    assert light.mean() == pytest.approx(mean, rel=0.01)
    assert light.var() == pytest.approx(shot * mean + read**2, rel=0.05)


def test_the_stream_decides_all(picture):
    image = picture(2)
    before = image.copy()
    one, two, three = (LowLight()(image, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, two)
    assert (one != three).any() and (image == before).all()


def test_white_balance_tints():
    grey = np.full((8, 8, 3), 200, np.uint8)
    tinted = LowLight((0.5, 0.5), (1, 1), 0.3, 0, 0)(grey, np.random.default_rng(1))[0, 0].astype(int)
    assert tinted[0] != tinted[1] or tinted[2] != tinted[1]


def test_demo_data(tmp_path, capsys):
    folder = demo.make(tmp_path / "demo")
    stems = {
        split: {p.stem.rsplit("_", 1)[0] for p in (folder / split / "low").iterdir()} for split in ("train", "val")
    }
    assert stems["train"].isdisjoint(stems["val"]), "whole photographs are held out"
    assert {"motorcycle_left", "motorcycle_right"} <= stems["train"]
    for split in ("train", "val"):
        dataset = build_dataset({"type": "PairedImageDataset", "dataroot": str(folder)}, split)
        means = [read_image(pair.lq).mean() for pair in dataset.pairs]
        assert 8 < np.mean(means) < 25 and all(max(read_image(p.gt).shape) <= demo.LONG_SIDE for p in dataset.pairs)
    first = folder / "val" / "low" / "chelsea_0.png"
    content, when = first.read_bytes(), first.stat().st_mtime_ns
    demo.make(folder)
    assert first.stat().st_mtime_ns == when and "already there" in capsys.readouterr().out
    first.unlink()
    demo.make(folder)
    assert first.read_bytes() == content, "made again, it is the same"
