"""In bands of rows, the result is that of the whole map."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llie.archs import create_network
from llie.ops import bands
from llie.ops.bands import Joined, add_tanh, fast, in_bands
from llie.ops.exporting import for_export
from llie.ops.resizing import conv_and_halve


@pytest.fixture
def small_bands(monkeypatch):
    """Bands of a few rows, also of small maps; the sizes of parts that functions get are in the list."""
    monkeypatch.setattr(bands, "BYTES", 2**12)


def seen_rows(function, seen):
    def run(*maps):
        seen.append(maps[0].shape[2])
        return function(*maps)

    return run


@pytest.mark.parametrize("height", [1, 2, 15, 16, 17, 40])
def test_a_local_function_in_bands(small_bands, height):
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), nn.Conv2d(4, 2, 3, padding=1))
    x, seen = torch.rand(2, 3, height, 9), []
    expected = conv(x)
    with torch.no_grad():
        result = in_bands(seen_rows(conv, seen), x, channels=4, halo=2)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    assert (len(seen) > 1) == (height > 16) and max(seen) <= 20


def test_several_maps(small_bands):
    x, y, seen = torch.rand(1, 8, 40, 9), torch.rand(1, 8, 40, 9), []
    with torch.no_grad():
        assert torch.equal(in_bands(seen_rows(torch.sub, seen), x, y, channels=8), x - y)
    assert len(seen) > 1


def test_whole_maps_where_gradients_or_graphs_are_wanted(small_bands):
    x, seen = torch.rand(1, 8, 40, 9, requires_grad=True), []
    double = seen_rows(lambda x: 2 * x, seen)
    in_bands(double, x, channels=8).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 2))
    with torch.no_grad(), for_export():
        in_bands(double, x, channels=8)
    assert seen == [40, 40]
    assert not fast(x)
    with torch.no_grad():
        assert fast(x)
        assert not fast(x.to("meta"))


def test_parts_of_a_map_joined():
    x = torch.rand(2, 3, 10, 4)
    joined = Joined(10)
    for part in x.split([3, 3, 4], dim=2):
        joined.add(part)
    assert torch.equal(joined.map, x)


def test_adding_tanh():
    x, y = torch.randn(1000), torch.linspace(-20, 20, 1000)
    expected = x.double() + y.double().tanh()
    assert torch.equal(add_tanh(x, y), x + y.tanh())
    with torch.no_grad():
        result = add_tanh(x, y)
    torch.testing.assert_close(result.double(), expected, atol=5e-7, rtol=0)


@pytest.mark.parametrize("size", [(2, 2), (8, 2), (2, 12), (7, 6), (40, 24), (1200, 6)])
def test_convolution_and_halving(small_bands, size):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, *size), torch.randn(7, 5, 3, 3)
    expected = F.interpolate(F.conv2d(x, weight, padding=1), scale_factor=0.5, mode="bilinear", align_corners=True)
    assert torch.equal(conv_and_halve(x, weight), expected)
    with torch.no_grad():
        torch.testing.assert_close(conv_and_halve(x, weight), expected, atol=2e-5, rtol=0)


def test_halving_takes_fewer_multiplications():
    from torch.utils.flop_counter import FlopCounterMode

    x, weight, counts = torch.rand(1, 4, 32, 32), torch.rand(4, 4, 3, 3, requires_grad=True), []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), FlopCounterMode(display=False) as counter:
            conv_and_halve(x, weight)
        counts.append(counter.get_total_flops())
    assert counts[0] == 4 * counts[1]


@pytest.mark.parametrize("name", ["HVISMM", "HVICIDNet", "HVISSM"])
@pytest.mark.parametrize("size", [(75, 37), (128, 24)])
def test_networks(small_bands, name, size):
    torch.manual_seed(0)
    network = create_network(name, channels=[8, 8, 16, 32], norm=True).eval()
    for parameter in network.parameters():  # networks begin near the identity
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    x = 0.5 * torch.rand(2, 3, *size)
    expected = network(x)
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected.detach(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [(64, 48), (400, 64)])
def test_maps_keep_channels_last(size):
    """One operation that loses the layout costs a quarter of the time, because all later ones follow it."""
    network = create_network("HVISMM").eval()
    lost = []

    def look(name):
        def hook(module, inputs, output):
            for map in output if isinstance(output, tuple) else (output,):
                if isinstance(map, torch.Tensor) and not map.is_contiguous(memory_format=torch.channels_last):
                    lost.append(name)

        return hook

    for name, module in network.trunk.named_children():
        module.register_forward_hook(look(name))
    with torch.no_grad():
        network(torch.rand(1, 3, *size))
    assert lost == []
