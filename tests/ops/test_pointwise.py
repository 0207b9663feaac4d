"""1x1 convolutions of several maps against those of their concatenation."""

import pytest
import torch
import torch.nn.functional as F

from llie.ops import pointwise


@pytest.mark.parametrize("size", [(1, 2, 4), (2, 7, 9), (1, 40, 50)])
@pytest.mark.parametrize(("channels", "outputs"), [([16, 8, 8], 16), ([5], 8), ([3, 20], 45), ([33, 1], 19)])
def test_equals_the_convolution_of_the_concatenation(size, channels, outputs):
    if not pointwise.works():
        pytest.skip("needs a C compiler: install gcc or clang")
    torch.manual_seed(0)
    (batch, *sides), total = size, sum(channels)
    weight, bias = torch.randn(outputs, total, 1, 1), torch.randn(outputs)
    maps = [torch.randn(batch, count, *sides) for count in channels]
    added = [torch.randn(batch, outputs, *sides) for _ in range(2)]
    convolve = pointwise.Pointwise(weight, bias, channels)
    expected = F.conv2d(torch.cat(maps, dim=1), weight, bias)
    result = convolve(maps)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(convolve(maps, added), expected + added[0] + added[1], rtol=0, atol=1e-5)


def test_it_needs_a_few_pixels():
    if not pointwise.works():
        pytest.skip("needs a C compiler: install gcc or clang")
    convolve = pointwise.Pointwise(torch.zeros(8, 3, 1, 1), torch.zeros(8), [3])
    with pytest.raises(ValueError, match="1 pixels are less than"):
        convolve([torch.zeros(1, 3, 1, 1)])
