"""PSNR, SSIM, MAE and colour difference against scikit-image, and what must hold for any images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color
from skimage import metrics as oracle

from llie.errors import UserError
from llie.metrics import delta_e, mae, psnr, ssim


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


def test_delta_e_equals_scikit_image():
    pred, gt = images()
    expected = color.deltaE_ciede2000(color.rgb2lab(pred), color.rgb2lab(gt)).mean()
    assert delta_e(pred, gt) == pytest.approx(expected, abs=1e-9)
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
