"""Resizing together with a convolution gives the result of the two operations in turn."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from llie.ops import resizing_kernel, tiles
from llie.ops.integers import in_integers
from llie.ops.linear import integers_are_fast
from llie.ops.resizing import conv_and_halve, double_and_merge, with_rows_as_channels


@pytest.fixture(params=["C", "PyTorch"])
def form(request, monkeypatch):
    """Of inference."""
    monkeypatch.setattr(tiles, "BYTES", 2**12)  # tiles of a few pixels, also of small maps
    if request.param == "PyTorch":
        monkeypatch.setattr(resizing_kernel, "works", lambda x: False)
    elif not resizing_kernel.works(torch.zeros(1)):
        pytest.skip("needs a C compiler: install gcc or clang")


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


SIZES = [(2, 2), (8, 2), (2, 12), (7, 6), (40, 24), (600, 6), (10, 700)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [(5, 7), (36, 16)])
def test_convolution_and_halving(form, threads, size, channels):
    torch.manual_seed(0)
    x, weight = torch.randn(2, channels[0], *size), torch.randn(channels[1], channels[0], 3, 3)
    expected = F.interpolate(F.conv2d(x, weight, padding=1), scale_factor=0.5, mode="bilinear", align_corners=True)
    for prelu in (None, nn.PReLU()):
        activated = expected if prelu is None else prelu(expected).detach()
        torch.testing.assert_close(conv_and_halve(x, weight, prelu), activated, atol=1e-4, rtol=0)
        with torch.no_grad():
            torch.testing.assert_close(conv_and_halve(x, weight, prelu), activated, atol=1e-4, rtol=0)


def test_halving_in_bfloat16():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 36, 20, 30), torch.randn(7, 36, 3, 3)
    expected = conv_and_halve(x, weight)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        results = conv_and_halve(x, weight), conv_and_halve(x.bfloat16(), weight)
    assert results[1].dtype == torch.bfloat16
    assert all((result - expected).norm() < 0.01 * expected.norm() for result in results)


def test_halving_in_integers():
    if not integers_are_fast():
        pytest.skip("this processor has no fast products of 16-bit integers")
    torch.manual_seed(0)
    x, weight = torch.randn(1, 37, 20, 30), torch.randn(7, 37, 3, 3)
    expected = conv_and_halve(x, weight)
    with torch.no_grad(), in_integers():
        result = conv_and_halve(x, weight)
    assert 1e-6 < (result - expected).norm() / expected.norm() < 1e-3


def test_halving_takes_fewer_multiplications(monkeypatch):
    monkeypatch.setattr(resizing_kernel, "works", lambda x: False)  # the counter does not see into C
    x, weight, counts = torch.rand(1, 4, 32, 32), torch.rand(4, 4, 3, 3, requires_grad=True), []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), FlopCounterMode(display=False) as counter:
            conv_and_halve(x, weight)
        counts.append(counter.get_total_flops())
    assert counts[0] == 4 * counts[1]


@pytest.mark.parametrize("size", [(1, 1), (4, 1), (1, 6), (20, 12), (300, 3), (3, 700)])
@pytest.mark.parametrize("channels", [(5, 7), (36, 16)])
@pytest.mark.parametrize("activate", [nn.PReLU(), nn.Tanh()])
@pytest.mark.parametrize("columns", [1, 3])
def test_doubling_and_merging(form, threads, size, channels, activate, columns):
    torch.manual_seed(0)
    x, skip = torch.randn(2, channels[0], *size), torch.randn(2, channels[1], 2 * size[0], 2 * size[1] + columns - 1)
    weight = torch.randn(channels[0], channels[1], 1, columns)
    resized = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    expected = activate(resized + F.conv2d(skip, weight)).detach()
    torch.testing.assert_close(double_and_merge(x, skip, weight, activate), expected)
    with torch.no_grad():
        torch.testing.assert_close(double_and_merge(x, skip, weight, activate), expected, atol=1e-5, rtol=1e-5)


def test_rows_as_channels():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 5, 6), torch.randn(7, 4, 3, 3)
    torch.testing.assert_close(F.conv2d(*with_rows_as_channels(x, weight)), F.conv2d(x, weight))


def test_positions_are_those_of_pytorch():
    """On a long axis, another rounding of the positions would show."""
    if not resizing_kernel.works(torch.zeros(1)):
        pytest.skip("needs a C compiler: install gcc or clang")
    torch.manual_seed(0)
    x, skip, weight = torch.randn(1, 1, 2, 6000), torch.zeros(1, 1, 4, 12000), torch.zeros(1, 1, 1, 1)
    with torch.no_grad():
        expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        torch.testing.assert_close(resizing_kernel.doubled(x, skip, weight, 1.0), expected, atol=2e-6, rtol=0)
