import pytest
import torch
import torch.nn.functional as F

from llie.ops import long_rows
from llie.ops.fusion import ConvChain, fuse
from llie.ops.integers import in_integers
from llie.ops.linear import integers_are_fast
from llie.ops.long_rows import LongRow, RowsAsChannels
from llie.ops.parts import Ends

pytestmark = pytest.mark.skipif(not long_rows.works(), reason="needs a C compiler: install gcc or clang")


def maps(channels, outputs, taps, size):
    torch.manual_seed(0)
    return torch.randn(2, channels, *size), torch.randn(outputs, channels, 1, taps)


@pytest.mark.parametrize(("channels", "outputs", "taps"), [(8, 3, 1), (16, 40, 5), (64, 39, 13), (24, 71, 3)])
@pytest.mark.parametrize("size", [(1, 1), (5, 4), (3, 50)])
def test_equals_the_convolution(channels, outputs, taps, size):
    x, weight = maps(channels, outputs, taps, size)
    result = LongRow(weight)(x)
    torch.testing.assert_close(result, F.conv2d(x, weight, padding=(0, taps // 2)), rtol=0, atol=2e-4)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("channels", "outputs", "taps"), [(8, 3, 1), (64, 39, 13), (24, 71, 3)])
def test_integers_keep_three_digits(channels, outputs, taps):
    if not integers_are_fast():
        pytest.skip("this processor has no fast products of 16-bit integers")
    x, weight = maps(channels, outputs, taps, (4, 30))
    x[1] *= 1e-20
    with in_integers():
        result = LongRow(weight)(x).double()
    expected = F.conv2d(x.double(), weight.double(), padding=(0, taps // 2))
    for found, wanted in zip(result, expected, strict=True):
        assert 1e-6 < (found - wanted).norm() / wanted.norm() < 1e-3


def test_a_chain_of_convolutions_takes_it(monkeypatch):
    calls = []
    original = LongRow.__call__
    monkeypatch.setattr(LongRow, "__call__", lambda self, x: calls.append(1) or original(self, x))
    torch.manual_seed(0)
    chain = fuse(ConvChain(torch.nn.Conv2d(64, 8, 5, padding=2), torch.nn.Conv2d(8, 3, 5, padding=2))).eval()
    x = torch.rand(1, 64, 40, 30)
    with torch.no_grad():
        torch.testing.assert_close(chain(x), chain.plain(x), rtol=0, atol=1e-5)
        assert len(calls) == 2  # strips of rows
        with torch.autocast("cpu", torch.bfloat16):
            chain(x)
    assert len(calls) == 2


@pytest.mark.parametrize(("top", "bottom"), [(True, True), (True, False), (False, True), (False, False)])
def test_terms_of_rows_are_added_in_c(top, bottom):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 8, 20, 150), torch.randn(3, 8, 5, 5), torch.randn(3)
    ends = Ends(top, bottom, 0 if top else 7)
    expected = F.conv2d(ends.padded(x, 2), weight, bias, padding=(0, 2))
    layer = RowsAsChannels(weight, bias, padding=2)
    with torch.inference_mode():
        result = layer.add(layer.terms(x), ends)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(layer(x, ends), expected, rtol=0, atol=1e-4)
