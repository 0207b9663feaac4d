"""Metrics as option files name them, in our spelling and in BasicSR's."""

import doctest

import numpy as np
import pytest

import llie.metrics
import llie.metrics.fidelity
from llie.errors import UserError
from llie.metrics import Metric, create_metric, psnr, ssim
from llie.registry import METRIC_REGISTRY


@pytest.fixture
def pair():
    random = np.random.default_rng(0)
    return tuple(random.integers(0, 256, (30, 40, 3), dtype=np.uint8) for _ in range(2))


def test_basicsr_spelling(pair):
    metric = create_metric({"type": "calculate_psnr", "crop_border": 2, "test_y_channel": False, "better": "higher"})
    assert metric(*pair, "rgb8") == psnr(*pair, crop_border=2)
    on_y = create_metric({"type": "calculate_ssim", "crop_border": 0, "test_y_channel": True}, "ssim_y")
    assert on_y.protocols(["rgb8", "rgb8-gtmean"]) == ["y8", "y8-gtmean"]
    assert on_y(*pair, "y8") == on_y(*pair, "rgb8") == ssim(*pair, "y8") != ssim(*pair)
    niqe = create_metric({"type": "calculate_niqe", "crop_border": 0, "input_order": "HWC", "convert_to": "y"})
    assert niqe.protocols(["rgb8", "rgb8-gtmean"]) == ["rgb8"]


def test_a_metric_without_a_direction_takes_it_from_the_option_file(monkeypatch):
    monkeypatch.setitem(METRIC_REGISTRY._entries, "distance", lambda pred, gt, protocol: 0.0)
    assert create_metric({"type": "distance"}).better == "higher"
    assert create_metric({"type": "distance", "better": "lower"}).better == "lower"


@pytest.mark.parametrize("name", METRIC_REGISTRY.keys())
def test_every_metric_tells_its_direction(name):
    metric = create_metric({"type": name})
    assert isinstance(metric, Metric)
    assert metric.better in ("higher", "lower")
    assert metric.better in metric.function.__doc__


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "pnsr"}, "Did you mean 'psnr'"),
        ({"type": "psnr", "crop_boarder": 2}, "Did you mean 'crop_border'"),
        ({"type": "psnr", "better": "lower"}, "better when higher"),
        ({"crop_border": 2}, "'type' is missing"),
    ],
)
def test_mistakes_in_an_option_file(spec, message):
    with pytest.raises(UserError, match=message):
        create_metric(spec)


@pytest.mark.parametrize("module", [llie.metrics, llie.metrics.fidelity])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
