import pytest
import torch
from torch import nn

from llie.ops import pixel_attention
from llie.ops.pixel_attention import Attend


@pytest.fixture(autouse=True)
def in_c():
    if not pixel_attention.works():
        pytest.skip("needs a C compiler: install gcc or clang")


def weights(channels, hidden):
    return [
        p.detach() for layer in (nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, 1, 1)) for p in layer.parameters()
    ]


def plain(x, y, factors, hidden, bias, last, last_bias):
    z = y * factors
    inner = nn.functional.conv2d(z, hidden, bias).relu()
    return x + z * nn.functional.conv2d(inner, last, last_bias).sigmoid()


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (5, 5), (17, 23)])
@pytest.mark.parametrize(("channels", "hidden"), [(8, 1), (16, 8), (64, 8), (40, 19)])
@torch.no_grad()
def test_equals_the_plain_form(channels, hidden, size):
    torch.manual_seed(0)
    x, y, factors = torch.randn(2, channels, *size), torch.randn(2, channels, *size), torch.rand(2, channels, 1, 1)
    given = weights(channels, hidden)
    torch.testing.assert_close(Attend(*given)(x, y, factors), plain(x, y, factors, *given))


@torch.no_grad()
def test_what_is_not_finite_shows():
    x, y, factors = torch.randn(1, 8, 5, 5), torch.randn(1, 8, 5, 5), torch.rand(1, 8, 1, 1)
    y[0, 3, 2, 2] = torch.nan
    lost = Attend(*weights(8, 4))(x, y, factors).isnan()
    assert lost[0, :, 2, 2].all() and lost.sum() == 8


def test_which_maps_fit():
    assert Attend.fits(torch.zeros(1, 16, 2, 2))
    assert not Attend.fits(torch.zeros(1, 13, 2, 2)) and not Attend.fits(torch.zeros(1, 16, 2, 2, dtype=torch.float64))
