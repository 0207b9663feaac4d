"""In tiles, the result is that of the whole map."""

import pytest
import torch
from torch import nn

from llie.archs import create_network
from llie.ops import lighten, resizing_kernel, tiles
from llie.ops.exporting import for_export
from llie.ops.tiles import add_tanh, fast, in_tiles, summed


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of a few pixels, also of small maps."""
    monkeypatch.setattr(tiles, "BYTES", 2**12)


def noted(function, seen):
    """The function; the sizes of the parts that it gets are added to a list."""

    def run(*maps):
        seen.append(tuple(maps[0].shape[2:]))
        return function(*maps)

    return run


@pytest.mark.parametrize("size", [(1, 9), (15, 9), (16, 16), (40, 9), (9, 40), (1, 600), (60, 70)])
@pytest.mark.parametrize("halo", [2, 3])
def test_a_local_function_in_tiles(small_tiles, size, halo):
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), nn.Conv2d(4, 2, 3, padding=1))
    x, seen = torch.rand(1, 3, *size), []
    expected = conv(x)
    with torch.no_grad():
        result = in_tiles(noted(conv, seen), x, channels=4, halo=halo)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    pixels = max(256, 64 * halo**2)
    assert (len(seen) > 1) == (x[0, 0].numel() > pixels)
    sides = 2 * halo * (max(max(part) for part in seen) + 2 * halo)
    assert all(height * width <= pixels + 2 * sides for height, width in seen)


@pytest.mark.parametrize("size", [(5, 7), (40, 9), (60, 70), (3, 300)])
def test_sums_over_tiles(small_tiles, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1)
    x, y, seen = torch.rand(2, 3, *size), torch.rand(2, 3, *size), []
    with torch.no_grad():
        expected = (conv(x) * conv(y)).sum((2, 3))
        found = summed(
            noted(lambda x, y, tile: tile.of(conv(x) * conv(y)).sum((2, 3)), seen), x, y, size=4, channels=4, halo=1
        )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-6)
    assert (len(seen) > 1) == (size != (5, 7))


def test_several_maps(small_tiles):
    x, y, seen = torch.rand(1, 8, 40, 9), torch.rand(1, 8, 40, 9), []
    with torch.no_grad():
        assert torch.equal(in_tiles(noted(torch.sub, seen), x, y, channels=8), x - y)
    assert len(seen) > 1


def test_whole_maps_where_gradients_or_graphs_are_wanted(small_tiles):
    x, seen = torch.rand(1, 8, 40, 9, requires_grad=True), []
    double = noted(lambda x: 2 * x, seen)
    in_tiles(double, x, channels=8).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 2))
    with torch.no_grad(), for_export():
        in_tiles(double, x, channels=8)
    assert seen == [(40, 9), (40, 9)]
    assert not fast(x)
    with torch.no_grad():
        assert fast(x)
        assert not fast(x.to("meta"))


def test_adding_tanh():
    x, y = torch.randn(1000), torch.linspace(-20, 20, 1000)
    expected = x.double() + y.double().tanh()
    assert torch.equal(add_tanh(x, y), x + y.tanh())
    with torch.no_grad():
        result = add_tanh(x, y)
    torch.testing.assert_close(result.double(), expected, atol=5e-7, rtol=0)


@pytest.mark.parametrize("name", ["HVISMM", "HVICIDNet", "HVISSM"])
@pytest.mark.parametrize("size", [(75, 37), (128, 24)])
def test_networks(small_tiles, monkeypatch, name, size):
    for kernel in (lighten, resizing_kernel):  # they need no tiles
        monkeypatch.setattr(kernel, "works", lambda x: False)
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
