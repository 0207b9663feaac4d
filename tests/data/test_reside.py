"""Dehazing and deraining sets in their published layouts: RESIDE (ITS, SOTS), Rain100H and similar sets."""

import pytest
import torch

from llie.data import build_dataset
from llie.data.check import check
from llie.data.readers import to_tensor, write_image
from llie.errors import UserError
from llie.options import load_options
from tests.conftest import REPOSITORY


def section(name, split, root, **changes):
    """A data set as the option files describe it, with another root."""
    options = load_options(REPOSITORY / "options" / "train" / f"{name}.yml")["datasets"][split]
    return options | {"dataroot": str(root), **changes}


@pytest.fixture
def its(tmp_path, put):
    hazy = ("1_1_0.90179.png", "1_2_0.98796.png", "10_1_0.79011.png", "1399_10_0.8231.png")
    put(tmp_path, *(f"hazy/{name}" for name in hazy), *(f"clear/{name}.png" for name in (1, 10, 1399)))
    return tmp_path


@pytest.fixture
def sots(tmp_path, picture):
    """References show ten pixels more on each side."""
    for name, inputs in ((1400, 10), (1401, 2)):
        scene = picture(name, 44, 52)
        write_image(tmp_path / f"gt/{name}.png", scene)
        for k in range(1, inputs + 1):
            write_image(tmp_path / f"hazy/{name}_{k}.png", scene[10:-10, 10:-10] // 2 + 100)
    return tmp_path


def names(dataset):
    return sorted((pair.lq.name, pair.gt.name) for pair in dataset.pairs)


def test_its_pairs_every_hazy_version_with_its_scene(its):
    assert names(build_dataset(section("SOTS_indoor", "train", its, gt_size=16), "train")) == [
        ("10_1_0.79011.png", "10.png"),
        ("1399_10_0.8231.png", "1399.png"),
        ("1_1_0.90179.png", "1.png"),
        ("1_2_0.98796.png", "1.png"),
    ]


def test_missing_reference_is_named(its):
    (its / "clear/10.png").unlink()
    with pytest.raises(UserError, match=r"1 images .* have no partner: .*hazy/10_1_0\.79011\.png"):
        build_dataset(section("SOTS_indoor", "train", its), "train")


def test_a_name_without_number_is_named(its, put):
    put(its, "hazy/forest.png")
    with pytest.raises(UserError, match=r"does not fit the name forest\.png"):
        build_dataset(section("SOTS_indoor", "train", its), "train")


def test_folder_of_another_name_is_told(tmp_path, put):
    put(tmp_path, "foggy/1_1.png", "clear/1.png")
    with pytest.raises(UserError, match="no pair of folders such as low/high"):
        build_dataset(section("SOTS_indoor", "val", tmp_path), "val")


def test_sots_references_lose_their_border(sots, picture):
    dataset = build_dataset(section("SOTS_indoor", "val", sots), "val")
    assert len(dataset) == 12
    item = next(item for item in (dataset[i] for i in range(12)) if item["lq_path"].endswith("1401_2.png"))
    assert torch.equal(item["gt"], to_tensor(picture(1401, 44, 52)[10:-10, 10:-10]))
    assert item["lq"].shape == item["gt"].shape


def test_sots_copies_that_have_cut_it(sots, picture):
    for name in (1400, 1401):
        write_image(sots / f"gt/{name}.png", picture(name, 24, 32))
    with pytest.raises(UserError, match=r"is 32x24, but .*1400\.png is 12x4 without its border \(gt_border: 10\)"):
        build_dataset(section("SOTS_indoor", "val", sots), "val")[0]
    assert build_dataset(section("SOTS_indoor", "val", sots, gt_border=0), "val")[0]["gt"].shape == (3, 24, 32)
    with pytest.raises(UserError, match="gt_border: -1"):
        build_dataset(section("SOTS_indoor", "val", sots, gt_border=-1), "val")


def test_data_check_knows_the_border(sots, capsys):
    options = {"datasets": {"val": section("SOTS_indoor", "val", sots)}}
    assert check(options) == 0 and "12 pairs" in capsys.readouterr().out
    options["datasets"]["val"]["gt_border"] = 0
    with pytest.raises(UserError, match=r"is 32x24, but its reference .* is 52x44"):
        check(options)


RAIN = {
    "as published": (["rain/rain-001.png", "norain/norain-001.png"], {}),
    "rainy": (["rainy/rain-001.png", "norain/norain-001.png"], {}),
    "repacked": (["test/input/1.png", "test/target/1.png"], {}),
    "references around the inputs": (
        ["rainy/rain-001.png", "norain-001.png"],
        {"dataroot": None, "dataroot_lq": "rainy", "dataroot_gt": "."},
    ),
    "Rain200H": (
        ["rain/X2/norain-1x2.png", "norain/norain-1.png"],
        {"dataroot": None, "dataroot_lq": "rain/X2", "dataroot_gt": "norain", "filename_tmpl": "{}x2"},
    ),
}


@pytest.mark.parametrize("layout", RAIN)
def test_rain_layouts(tmp_path, put, layout):
    files, changes = RAIN[layout]
    put(tmp_path, *files)
    changes = {key: str(tmp_path / value) if key.startswith("dataroot_") else value for key, value in changes.items()}
    dataset = build_dataset(section("hdm/Rain100H", "val", tmp_path) | changes, "val")
    assert [(pair.lq, pair.gt) for pair in dataset.pairs] == [(tmp_path / files[0], tmp_path / files[1])]


def test_rain_without_its_partner_is_named(tmp_path, put):
    put(tmp_path, "rain/rain-001.png", "rain/rain-002.png", "norain/norain-001.png", "norain/norain-003.png")
    with pytest.raises(UserError, match=r"2 images .* no partner: .*norain-003\.png, .*rain-002\.png"):
        build_dataset(section("hdm/Rain100H", "val", tmp_path), "val")
