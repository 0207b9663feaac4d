"""Protocols: the recipes that published tables were made with, and every kind of image that may come in."""

import cv2
import numpy as np
import pytest
import torch

from llie.errors import UserError
from llie.metrics import PROTOCOLS, mae, niqe, psnr, ssim
from llie.metrics.protocols import apply_protocol, plain, uses_reference, with_counterparts


@pytest.fixture
def pair():
    """A dark float prediction and its 8-bit reference, (30, 40, 3)."""
    random = np.random.default_rng(0)
    gt = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return (gt / 255 * 0.4 + random.random(gt.shape) * 0.1).astype(np.float32), gt


def psnr_of(pred, gt):
    """PSNR of images on the 0..255 scale."""
    return 10 * np.log10(255**2 / np.mean((pred.astype(np.float64) - gt) ** 2))


def test_names():
    for base in ("rgb8", "rgb8-trunc", "rgb-float", "y8"):
        assert {base, f"{base}-gtmean"} <= set(PROTOCOLS)
    with pytest.raises(UserError, match="Did you mean 'rgb8-gtmean'"):
        psnr(np.zeros((8, 8, 3)), np.zeros((8, 8, 3)), "rgb8-gtmeen")


def test_levels(pair):
    pred, gt = pair
    scaled = pred * np.float32(255)
    assert psnr(pred, gt, "rgb8") == pytest.approx(psnr_of(np.round(scaled), gt), abs=1e-9)
    assert psnr(pred, gt, "rgb8-trunc") == pytest.approx(psnr_of(scaled.astype(np.uint8), gt), abs=1e-9)
    assert psnr(pred, gt, "rgb-float") == pytest.approx(psnr_of(scaled, gt), abs=1e-9)
    assert psnr(pred * 3, gt, "rgb-float") == pytest.approx(psnr_of(np.clip(scaled * 3, 0, 255), gt), abs=1e-5)


def test_y_is_the_luma_of_opencv_in_studio_range(pair):
    pred, gt = (np.round(image * scale).astype(np.uint8) for image, scale in zip(pair, (255, 1), strict=True))
    luma = [16 + cv2.cvtColor(i.astype(np.float32), cv2.COLOR_RGB2GRAY) * 219 / 255 for i in (pred, gt)]
    assert psnr(pred, gt, "y8") == pytest.approx(psnr_of(*luma), abs=1e-3)


def test_gtmean_of_hvi_cidnet(pair):
    pred, gt = pair
    cut = (pred * 255).astype(np.uint8)
    ratio = cv2.cvtColor(gt, cv2.COLOR_RGB2GRAY).mean() / cv2.cvtColor(cut, cv2.COLOR_RGB2GRAY).mean()
    expected = np.clip(cut * ratio, 0, 255)
    assert psnr(pred, gt, "rgb8-trunc-gtmean") == pytest.approx(psnr_of(expected, gt), abs=1e-9)


def test_gtmean_of_retinexformer(pair):
    pred, gt = pair
    target = (gt / 255).astype(np.float32)
    grey = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean() for image in (target, pred)]  # RGB taken for BGR
    expected = np.clip(pred * (grey[0] / grey[1]), 0, 1) * 255
    assert psnr(pred, gt, "rgb-float-gtmean-swapped") == pytest.approx(psnr_of(expected, gt), abs=1e-4)
    assert ssim(pred, gt, "rgb8-gtmean-swapped") == pytest.approx(
        ssim(np.round(expected).astype(np.uint8), gt), abs=1e-4
    )


def test_gtmean_of_lyt_net(pair):
    pred, gt = pair
    expected = np.clip(pred * (gt.mean() / 255 / pred.mean()), 0, 1) * 255
    assert psnr(pred, gt, "rgb-float-gtmean-channels") == pytest.approx(psnr_of(expected, gt), abs=1e-4)


def test_gtmean_undoes_a_change_of_exposure():
    gt = np.random.default_rng(0).random((20, 20, 3))
    for protocol in ("rgb-float-gtmean", "rgb-float-gtmean-channels", "rgb-float-gtmean-swapped"):
        assert mae(gt * 0.3, gt, protocol) < 1e-12


def test_gtmean_of_a_black_prediction_stays_black():
    gt = np.full((24, 24, 3), 0.5)
    for protocol in PROTOCOLS:
        assert np.isfinite(psnr(gt * 0, gt, protocol))
    assert psnr(gt * 0, gt, "rgb-float-gtmean") == psnr(gt * 0, gt, "rgb-float")


def test_shaving_leaves_the_border_out(pair):
    pred, gt = pair
    inner = np.s_[10:-10, 10:-10]
    assert psnr(pred, gt, "rgb8-shave10") == pytest.approx(psnr(pred[inner], gt[inner], "rgb8"), rel=1e-12)
    with pytest.raises(UserError, match="leaves nothing of an image of 20x20"):
        psnr(pred[:20, :20], gt[:20, :20], "rgb8-shave10")


def test_oracle_gamma_finds_the_exponent():
    gt = np.random.default_rng(0).random((20, 20, 3))
    exponent = np.linspace(0.4, 2.5, 100)[70]
    assert mae(gt ** (1 / exponent), gt, "rgb-float-gamma") < 1e-9


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocols_leave_their_arguments_alone_and_stay_in_range(pair, protocol):
    pred, gt = (image * scale for image, scale in zip(pair, (400.0, 1.0), strict=True))
    before = pred.copy(), gt.copy()
    result, _ = apply_protocol(protocol, pred, gt)
    assert result.min() >= 0 and result.max() <= 255
    np.testing.assert_array_equal((pred, gt), before)


def test_plain_and_gtmean_figures_come_together():
    assert with_counterparts(["rgb8"]) == with_counterparts(["rgb8-gtmean"]) == ["rgb8", "rgb8-gtmean"]
    assert with_counterparts(["rgb-float-gtmean-swapped"])[0] == "rgb-float"
    for protocol in PROTOCOLS:
        assert not uses_reference(plain(protocol))
        assert set(with_counterparts([protocol])) <= set(PROTOCOLS)


def test_kinds_of_images_score_alike():
    random = np.random.default_rng(0)
    pred, gt = (random.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(2))
    tensors = [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in (pred, gt)]
    kinds = [
        (pred, gt),
        (pred.astype(np.uint16) * 257, gt.astype(np.uint16) * 257),
        (pred / 255, gt / 255),
        ((pred / 255).astype(np.float32), gt),
        (tensors[0], tensors[1]),
        (tensors[0][None], tensors[1][None]),
        (tensors[0].double(), gt),
        (tensors[0].requires_grad_(), gt),
    ]
    for protocol in ("rgb8", "rgb8-trunc", "rgb8-gtmean", "y8"):
        if protocol == "rgb8-trunc":  # k / 255 * 255 in float64 may fall short of k
            kinds = [kind for kind in kinds if kind[0].dtype not in (np.float64, torch.float64)]
        values = [psnr(*kind, protocol) for kind in kinds]
        assert values == pytest.approx([values[0]] * len(values), abs=1e-12)
    planar = [np.moveaxis(image, -1, 0) for image in (pred, gt)]
    assert psnr(*planar, input_order="CHW") == psnr(pred, gt)


def test_eight_bit_values_survive_float32():
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert psnr(torch.from_numpy(levels).permute(2, 0, 1).float() / 255, levels, "rgb8-trunc") == float("inf")


def test_half_precision_predictions_are_accepted():
    gt = torch.rand(3, 16, 16)
    assert psnr(gt.half(), gt) > 50
    assert psnr(gt.bfloat16(), gt) > 40


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("metric", [psnr, ssim, mae])
def test_a_broken_prediction_is_an_error(metric, value):
    pred, gt = torch.rand(3, 16, 16), torch.rand(3, 16, 16)
    pred[1, 2, 3] = value
    with pytest.raises(UserError, match="prediction is broken: 1 of its 768"):
        metric(pred, gt)
    with pytest.raises(UserError, match="reference is broken"):
        metric(gt, pred)


def test_niqe_of_a_broken_image_is_an_error_not_a_score():
    image = torch.rand(3, 200, 200)
    image[0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="broken"):
        niqe(image)


@pytest.mark.parametrize(
    ("pred", "gt", "message"),
    [
        (np.zeros((8, 9, 3)), np.zeros((8, 8, 3)), "prediction is 9x8 .* reference is 8x8"),
        (np.zeros((8, 8, 1)), np.zeros((8, 8, 3)), "1 channel, but .* 3 channels"),
        (np.zeros((3, 8, 9)), np.zeros((3, 8, 9)), "expected a tensor"),
        (np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3)), "2 predictions but 1 references"),
        (np.zeros((8, 8, 3), int), np.zeros((8, 8, 3)), "int64; expected uint8"),
        (np.full((8, 8, 3), 128.0), np.zeros((8, 8, 3)), "divide it by 255"),
        (np.zeros((0, 8, 3)), np.zeros((0, 8, 3)), "shape"),
    ],
)
def test_unusable_images(pred, gt, message):
    with pytest.raises(UserError, match=message):
        psnr(pred, gt)
