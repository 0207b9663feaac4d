"""HDM's loss, as its option files write it, and its metrics against golden values."""

import pytest
import torch

from llie.losses import build_losses
from llie.metrics import psnr, ssim
from llie.options import load_options
from tests.conftest import REPOSITORY
from tests.golden.compare import assert_near


@pytest.fixture
def case(golden):
    return golden("hdm_loss", torch.float64)


@pytest.fixture
def losses(case, tmp_path):
    """The loss of the training files, on the golden VGG16."""
    state = {key: value * 2**0.5 if value.ndim == 4 else value for key, value in case.state_dict().items()}
    torch.save(state, tmp_path / "vgg16.pth")
    train = load_options(REPOSITORY / "options" / "train" / "SOTS_indoor.yml")["train"]
    train["losses"] = [
        term if term["type"] == "L1Loss" else {**term, "weights": str(tmp_path / "vgg16.pth")}
        for term in train["losses"]
    ]
    return build_losses(train).double()


def test_the_recipes_loss_is_the_published_one(case, losses):
    prediction = case["prediction"].requires_grad_()
    total, parts = losses(prediction, {"gt": case["target"]})
    assert_near(total, case["total"])
    assert_near(parts["L1Loss"], case["l1"])
    assert_near(parts["PerceptualLoss"], 0.04 * case["perceptual"])
    total.backward()
    assert_near(prediction.grad, case["grad_prediction"])


def test_gradient_of_the_perceptual_term(case, losses):
    prediction = case["prediction"].requires_grad_()
    [term] = [term for term in losses.terms if term.name == "PerceptualLoss"]
    (term(prediction, {"gt": case["target"]}) / term.weight).backward()
    assert_near(prediction.grad, case["grad_perceptual"])


def test_metrics_of_its_protocol(case):
    """RGB, clipped but not rounded; zeros around the image in SSIM."""
    pred, gt = case["prediction"], case["target"]
    assert psnr(pred, gt, "rgb-float") == pytest.approx(float(case["psnr"]), abs=1e-4)
    # Its window is normalised in single precision; ours, in double precision, is 1.4e-6 off.
    assert ssim(pred, gt, "rgb-float", border="zero") == pytest.approx(float(case["ssim"]), abs=2e-6)
