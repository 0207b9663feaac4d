"""Thumbnails are area averages; a grid is read trilinearly, with the same result from any part of an image."""

import math

import pytest
import torch
from torch.nn import functional as F

from llie.ops.bilateral_grid import area_weights, hat_weights, log_scale, make_thumbnail, slice_grid


def test_log_scale_spans_zero_to_one_in_equal_steps_per_stop():
    values = log_scale(torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(values, torch.tensor([0.0, 0.0, 1.0]))
    steps = log_scale(torch.tensor([1 / 8, 1 / 4, 1 / 2, 1])).diff()
    torch.testing.assert_close(steps, torch.full((3,), math.log(2) / math.log(256)), rtol=0.05, atol=0)


def test_hat_weights_interpolate_linearly_and_are_constant_outside():
    grid = torch.tensor([1.0, 3.0, 2.0])
    centres = (torch.arange(3) + 0.5) / 3
    torch.testing.assert_close(hat_weights(centres, 3) @ grid, grid)
    between = hat_weights(torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]), 3) @ grid
    torch.testing.assert_close(between, torch.tensor([1.0, 2.0, 2.5, 2.0]))


@pytest.mark.parametrize(("size", "bins"), [(256, 128), (7, 3), (3, 7), (1, 128)])
def test_area_weights_share_out_every_pixel(size, bins):
    weights = area_weights(size, bins)
    torch.testing.assert_close(weights.sum(1), torch.ones(bins))
    torch.testing.assert_close(weights.sum(0), torch.full((size,), bins / size))


def test_thumbnail_is_the_average_of_areas():
    image = torch.rand(2, 3, 256, 384, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(make_thumbnail(image), F.adaptive_avg_pool2d(image, 128))
    bytes_ = (image * 255).round().to(torch.uint8)
    torch.testing.assert_close(make_thumbnail(bytes_, white=255), make_thumbnail(bytes_ / 255))
    torch.testing.assert_close(make_thumbnail(image, rows=100), make_thumbnail(image, rows=10_000))


def test_slicing_reads_place_and_luma():
    x = torch.full((1, 3, 64, 64), 0.5)
    places = torch.arange(4.0)[:, None] + 10 * torch.arange(4.0)  # rows count ones, columns tens
    grid = places.expand(1, 2, 8, 4, 4)
    sliced = slice_grid(grid, x)
    assert sliced.shape == (1, 2, 64, 64)
    inner = torch.arange(20, 44)
    expected = (inner + 0.5) / 16 - 0.5
    torch.testing.assert_close(sliced[0, 0, 20:44, 32], expected + 10 * ((32.5) / 16 - 0.5), atol=0.02, rtol=0)

    lumas = torch.arange(8.0).reshape(1, 1, 8, 1, 1).expand(1, 1, 8, 4, 4)
    for value in (0.02, 0.1, 0.5):
        wanted = log_scale(torch.tensor(value)) * 8 - 0.5
        torch.testing.assert_close(slice_grid(lumas, torch.full_like(x, value)).mean(), wanted, atol=1e-4, rtol=0)


def test_a_region_reads_the_same_as_the_whole():
    generator = torch.Generator().manual_seed(0)
    x, grid = torch.rand(1, 3, 96, 80, generator=generator), torch.randn(1, 3, 8, 16, 16, generator=generator)
    region = torch.tensor([[32 / 96, 72 / 96, 16 / 80, 64 / 80]])
    part = slice_grid(grid, x[..., 32:72, 16:64], region)
    torch.testing.assert_close(part[..., 8:-8, 8:-8], slice_grid(grid, x)[..., 40:64, 24:56], atol=1e-5, rtol=1e-5)


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 4, 6, dtype=torch.float64, generator=generator).requires_grad_()
    grid = torch.randn(1, 2, 3, 2, 2, dtype=torch.float64, generator=generator).requires_grad_()
    torch.autograd.gradcheck(lambda g, image: slice_grid(g, image), (grid, x))
