"""MACs against counts by hand."""

import pytest
import torch
from torch import nn

from llie.benchmark.cost import measure_cost
from llie.benchmark.macs import count_macs
from llie.benchmark.plan import CostSpec, ModelSpec
from llie.ops import DeformConv2d, RegionConv2d, deform_conv2d, fuse
from llie.ops.fusion import ConvChain
from llie.ops.selective_scan import selective_scan
from llie.ops.winograd import Conv3x3

SIZE = (24, 16)
PIXELS = 24 * 16


def test_convolutions():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1, stride=2))
    assert count_macs(network, SIZE) == PIXELS * 3 * 8 * 9 + PIXELS // 4 * 8 * 5


def test_convolutions_with_fewer_multiplications_count_as_plain_ones():
    network = nn.Sequential(nn.Conv2d(3, 16, 1), Conv3x3(16, 24)).eval()
    by_hand = 64 * 64 * (3 * 16 + 16 * 24 * 9)
    assert count_macs(network, (64, 64)) == by_hand
    assert count_macs(fuse(network), (64, 64)) == by_hand


def test_deformable_convolution():
    predicted = 3 * 27 * 9  # offsets and mask
    applied = 3 * 6 * 9
    read = 3 * 9 * 4  # bilinearly: four products for each channel and tap
    assert count_macs(DeformConv2d(3, 6), SIZE) == PIXELS * (predicted + applied + read)


@pytest.mark.parametrize("backend", ["torchvision", "grid_sample"])
def test_both_ways_of_deformable_convolution_count_alike(backend):
    class Deformed(nn.Module):
        def forward(self, x):
            offset, weight = torch.zeros(1, 18, *SIZE), torch.ones(6, 3, 3, 3)
            return deform_conv2d(x, offset, weight, padding=1, backend=backend)

    assert count_macs(Deformed(), SIZE) == PIXELS * 9 * 3 * (6 + 4)


def test_region_convolution_applies_one_kernel_to_a_pixel():
    regions = 5
    network = RegionConv2d(3, 6, regions=regions)
    kernels = 9 * 3 * regions**2 + 9 * regions * (regions * 6 * 3)  # two 1x1 convolutions at the kernel's 3x3 taps
    guide = PIXELS * 3 * regions * 9
    assert count_macs(network, SIZE) == kernels + guide + PIXELS * 3 * 6 * 9


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_selective_scan(backend):
    channels, states = 3, 4

    class Scan(nn.Module):
        def forward(self, x):
            u = x.flatten(2)
            b = torch.ones(1, states, u.shape[2])
            return selective_scan(u, u, -torch.ones(channels, states), b, b, backend=backend)

    assert count_macs(Scan(), SIZE) == PIXELS * channels * states * 5 // 2


def test_fused_layers_count_as_published():
    chain = ConvChain(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)).eval()
    before = count_macs(chain, SIZE)
    with torch.no_grad():
        assert count_macs(fuse(chain), SIZE) == before == PIXELS * (3 * 8 * 9 + 8 * 8)
    assert all(parameter.requires_grad for parameter in chain.parameters())


def test_cost_is_measured_in_a_process_of_its_own():
    cost = measure_cost(ModelSpec("Dawn", "dawn"), CostSpec((64, 64), warmup=1, repeats=2), threads=1)
    assert cost["parameters"] == 850324 and cost["macs"] > 1e7
    latency = cost["latency"]
    assert 0 < latency["q1"] <= latency["median"] <= latency["q3"] and latency["repeats"] == 2
    assert cost["threads"] == 1 and cost["device"]
    if cost["peak_memory"] is not None:  # Linux tells
        assert 4 * 850324 < cost["peak_memory"] < 2**30
