"""The network that ships with llie: no download, better results on dark photographs, no harm to light ones."""

import cv2
import numpy as np
import pytest
from skimage import data

import llie
from llie.data.lowlight import Camera
from llie.inference.loading import PRETRAINED
from llie.metrics import psnr

EXACT = {"untouched": 0.0, "uneven": 0.0, "cast": 0.0, "gamma": (1, 1), "jpeg": 0.0}


@pytest.fixture(scope="module")
def enhance():
    return llie.load()


@pytest.fixture(scope="module")
def photograph():
    return cv2.resize(data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA)


def test_it_is_small_and_has_a_model_card():
    weights = PRETRAINED / "dawn.safetensors"
    assert weights.stat().st_size <= 2_000_000
    card = (PRETRAINED / "dawn.md").read_text(encoding="utf-8")
    for part in ("Data", "Recipe", "Figures", "Limits", "Licence"):
        assert f"## {part}" in card


@pytest.mark.parametrize("stops", [-2, -3, -4, -5])
def test_dark_photographs_come_back(enhance, photograph, stops):
    camera = Camera((stops, stops), shot=(5e-5, 5e-5), read=(3e-4, 3e-4), **EXACT)
    dark = camera(photograph, np.random.default_rng(0))
    assert psnr(enhance(dark), photograph) > max(22, psnr(dark, photograph) + 8)


def test_well_exposed_photographs_are_left_alone(enhance):
    scores = []
    for name in ("astronaut", "chelsea", "coffee"):
        photograph = cv2.resize(getattr(data, name)(), (256, 256), interpolation=cv2.INTER_AREA)
        result = enhance(photograph)
        scores.append(psnr(result, photograph))
        assert (result >= 250).all(2).mean() < (photograph >= 250).all(2).mean() + 0.01
    assert min(scores) > 24 and np.mean(scores) > 28


def test_by_name_and_with_its_control(photograph):
    named = llie.load("dawn", denoise=0.0)
    assert not np.array_equal(named(photograph), llie.load()(photograph))
