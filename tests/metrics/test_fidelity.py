"""PSNR, SSIM, MAE and colour difference against scikit-image, and what must hold for any images."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import metrics as oracle

from llie.errors import UserError
from llie.metrics import delta_e, mae, ms_ssim, psnr, ssim
from tests import needs


def images(seed=0, shape=(40, 53, 3)):
    random = np.random.default_rng(seed)
    gt = random.integers(0, 256, shape, dtype=np.uint8)
    return np.clip(gt + random.normal(0, 20, shape), 0, 255).astype(np.uint8), gt


pairs = st.builds(images, st.integers(0, 2**16), st.tuples(st.integers(11, 40), st.integers(11, 40), st.just(3)))
property_test = settings(deadline=None, derandomize=True, max_examples=20)


@property_test
@given(pairs)
def test_equals_scikit_image(pair):
    pred, gt = pair
    assert psnr(pred, gt) == pytest.approx(oracle.peak_signal_noise_ratio(gt, pred), abs=1e-10)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = [oracle.structural_similarity(gt[..., c], pred[..., c], full=True, **gaussian)[1] for c in range(3)]
    valid = np.stack(expected, -1)[5:-5, 5:-5]
    assert ssim(pred, gt) == pytest.approx(valid.mean(), abs=1e-10)


def test_equals_scikit_image_on_float64():
    random = np.random.default_rng(1)
    pred, gt = random.random((30, 20, 3)), random.random((30, 20, 3))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    assert psnr(pred, gt, "rgb-float") == pytest.approx(
        oracle.peak_signal_noise_ratio(gt, pred, data_range=1), abs=1e-10
    )
    assert ssim(pred, gt, "rgb-float") == pytest.approx(
        oracle.structural_similarity(gt, pred, channel_axis=-1, **options), abs=1e-10
    )


@property_test
@given(pairs)
def test_mirror_images_score_alike_and_order_of_arguments_does_not_matter(pair):
    pred, gt = pair
    for metric in (psnr, ssim, mae):
        assert metric(pred[:, ::-1], gt[:, ::-1]) == pytest.approx(metric(pred, gt), rel=1e-12)
        assert metric(gt, pred) == pytest.approx(metric(pred, gt), rel=1e-12)


def test_identical_images():
    _, gt = images()
    assert psnr(gt, gt) == float("inf")
    assert ssim(gt, gt) == 1
    assert mae(gt, gt) == delta_e(gt, gt) == 0


def test_more_noise_is_worse():
    _, gt = images()
    noise = np.random.default_rng(2).normal(size=gt.shape)
    worse = [gt / 255 + noise * level for level in (0.01, 0.05, 0.2)]
    for metric in (psnr, ssim):
        assert metric(worse[0], gt) > metric(worse[1], gt) > metric(worse[2], gt)
    for metric in (mae, delta_e):
        assert metric(worse[0], gt) < metric(worse[1], gt) < metric(worse[2], gt)


def test_mae_is_on_the_unit_scale():
    gt = np.full((12, 12, 3), 100, np.uint8)
    assert mae(gt + 51, gt) == pytest.approx(0.2)
    pred, gt = (torch.from_numpy(image) / 255 for image in images())
    pred, gt = pred.permute(2, 0, 1), gt.permute(2, 0, 1)
    assert mae(pred, gt) == pytest.approx(float(torch.nn.functional.l1_loss(pred, gt)), rel=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "expected"),  # by colour-science 0.4.7, which rounds sRGB's matrix and the white point differently
    [
        ((30, 20, 60), (60, 40, 90), 7.6802),
        ((200, 30, 60), (190, 60, 30), 12.1288),
        ((10, 12, 11), (14, 10, 20), 6.4672),
        ((120, 200, 40), (90, 210, 80), 6.3409),
        ((128, 128, 128), (140, 130, 120), 6.4735),
    ],
)
def test_delta_e_is_that_of_colour_science(one, other, expected):
    pred, gt = (np.full((4, 4, 3), colour, np.uint8) for colour in (one, other))
    assert delta_e(pred, gt) == pytest.approx(expected, abs=0.005)


def test_delta_e_is_the_mean_over_pixels_and_needs_colour():
    pred, gt = images()
    pixels = [delta_e(p[None, None], g[None, None]) for p, g in zip(pred[0], gt[0], strict=True)]
    assert delta_e(pred[:1], gt[:1]) == pytest.approx(np.mean(pixels))
    with pytest.raises(UserError, match="RGB"):
        delta_e(pred, gt, "y8")


def test_crop_border_is_that_of_cropped_images():
    pred, gt = images()
    inner = np.s_[3:-3, 3:-3]
    for metric in (psnr, ssim, mae):
        assert metric(pred, gt, crop_border=3) == pytest.approx(metric(pred[inner], gt[inner]), rel=1e-12)
    with pytest.raises(UserError, match="leaves nothing"):
        psnr(pred, gt, crop_border=20)


def test_batch_scores_the_mean_of_its_images():
    pred, gt = (torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for metric in (psnr, ssim, mae):
        assert metric(pred, gt) == pytest.approx((metric(pred[0], gt[0]) + metric(pred[1], gt[1])) / 2)


def test_ssim_of_an_image_smaller_than_its_window():
    with pytest.raises(UserError, match="11x11"):
        ssim(np.zeros((10, 30, 3), np.uint8), np.zeros((10, 30, 3), np.uint8))


def test_ssim_with_zeros_around_the_image():
    pred, gt = images()
    around = [np.pad(image, ((5, 5), (5, 5), (0, 0))) for image in (pred, gt)]
    assert ssim(pred, gt, border="zero") == pytest.approx(ssim(*around), rel=1e-12)
    assert ssim(pred, gt, border="zero") != ssim(pred, gt)
    assert ssim(pred[:5, :7], gt[:5, :7], border="zero") < 1
    with pytest.raises(UserError, match="valid or zero, not 'reflect'"):
        ssim(pred, gt, border="reflect")


def ms_ssim_by_definition(pred, gt):
    """Wang et al. 2003: contrast and structure at every scale, luminance at the last, to the power of their weights."""
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    window = cv2.getGaussianKernel(11, 1.5)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def blur(image):
        return cv2.sepFilter2D(image, -1, window, window)[5:-5, 5:-5]

    product = 1.0
    for scale, weight in enumerate(weights):
        mean_p, mean_g = blur(pred), blur(gt)
        variances = blur(pred**2) - mean_p**2 + blur(gt**2) - mean_g**2
        structure = (2 * (blur(pred * gt) - mean_p * mean_g) + c2) / (variances + c2)
        luminance = (2 * mean_p * mean_g + c1) / (mean_p**2 + mean_g**2 + c1)
        last = scale == len(weights) - 1
        product = product * ((structure * luminance if last else structure).mean((0, 1))) ** weight
        pred, gt = (
            image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2, 3).mean((1, 3)) for image in (pred, gt)
        )
    return product.mean()


def test_ms_ssim_equals_its_definition():
    needs.package("piq", "metrics")
    random = np.random.default_rng(0)
    gt = cv2.GaussianBlur(random.integers(0, 256, (192, 224, 3), dtype=np.uint8), (0, 0), 3)
    pred = (0.7 * gt + random.integers(0, 40, gt.shape)).astype(np.uint8)
    assert ms_ssim(gt, gt) == pytest.approx(1)
    expected = ms_ssim_by_definition(pred.astype(np.float64), gt.astype(np.float64))
    assert ms_ssim(pred, gt) == pytest.approx(expected, abs=1e-5)
    assert 0.1 < expected < 0.95
    with pytest.raises(UserError, match="at least 161x161"):
        ms_ssim(gt[:100], gt[:100])
