import numpy as np
import pytest
import torch

from llie.errors import UserError
from llie.ops.snr import denoise, grey, snr_map
from tests.golden.fill import low_light_input


def test_golden_map(golden):
    vector = golden("snr_map")
    x = vector["x"]
    assert torch.equal(denoise(x), vector["nf"])
    torch.testing.assert_close(grey(x), vector["dark"], rtol=0, atol=1e-7)
    torch.testing.assert_close(grey(denoise(x)), vector["light"], rtol=0, atol=1e-7)
    torch.testing.assert_close(snr_map(x), vector["mask"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["depth1_64x64", "full_64x64", "rb5_10_32x48", "protocol"])
def test_golden_maps_of_the_networks(golden, case):
    vector = golden(f"snr_{case}")
    assert torch.equal(denoise(vector["x"]), vector["nf"])
    torch.testing.assert_close(snr_map(vector["x"]), vector["mask"], rtol=1e-5, atol=1e-6)


def test_denoised_training_samples(golden):
    vector = golden("snr_data")
    for sample in ("smid_train", "smid_train_b", "smid_train_c", "smid_test"):
        torch.testing.assert_close(denoise(vector[f"{sample}_LQ"][None])[0], vector[f"{sample}_nf"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (7, 4)])
def test_any_size_is_reflected_as_by_numpy(size):
    x = torch.rand(1, 1, *size, dtype=torch.float64)
    padded = np.pad(x[0, 0].numpy(), 2, mode="reflect")
    expected = np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).mean((2, 3))
    np.testing.assert_allclose(denoise(x)[0, 0], expected, rtol=1e-12)
    assert snr_map(x.expand(1, 3, *size)).shape == (1, 1, *size)


def test_images_of_a_batch_are_normalised_one_by_one():
    x = torch.from_numpy(low_light_input(20, 24, seed=1, batch=2))
    torch.testing.assert_close(snr_map(x)[1:], snr_map(x[1:]))
    assert snr_map(x).amax((1, 2, 3)).min() > 0.99


def test_a_constant_image_is_all_signal_and_a_black_one_is_none():
    assert snr_map(torch.full((1, 3, 8, 8), 0.3)).min() > 0.99
    assert snr_map(torch.zeros(1, 3, 8, 8)).max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_get_a_full_precision_map(dtype):
    x = torch.from_numpy(low_light_input(16, 16, seed=2)).to(dtype)
    assert torch.equal(snr_map(x), snr_map(x.float()))


def test_a_quantile_below_one_saturates_that_share_of_the_pixels():
    x = torch.from_numpy(low_light_input(40, 40, seed=3))
    share = (snr_map(x, quantile=0.75) > 0.999).float().mean()
    assert 0.25 <= share < 0.27
    assert snr_map(x).mean() < snr_map(x, quantile=0.75).mean()


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (3, 8, 8)])
def test_arguments_that_are_not_images(shape):
    with pytest.raises(UserError, match=r"images must be \(B, 3, H, W\), not"):
        snr_map(torch.zeros(shape))


def test_gradcheck():
    x = torch.rand(1, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(snr_map, x)
