import pytest
import torch
from torch.nn import functional as F

from llie.ops import depthwise
from llie.ops.depthwise import SmallConv, convolve, suits
from llie.ops.exporting import for_export
from llie.ops.parts import offered

pytestmark = pytest.mark.skipif(not depthwise.works(), reason="needs a C compiler: install gcc or clang")

# results, inputs of each, groups
FORMS = [(48, 1, 48), (48, 2, 24), (3, 48, 1), (1, 16, 1)]


def maps(outputs, inputs, groups, taps, height, width):
    torch.manual_seed(0)
    x = torch.randn(2, inputs * groups, height, width)
    return x, torch.randn(outputs, inputs, taps, taps), torch.randn(outputs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 9), (19, 40), (2, 300)])
def test_equals_the_convolution(form, taps, height, width):
    x, weight, bias = maps(*form, taps, height, width)
    with torch.no_grad():
        assert suits(x, weight, form[2])
        result = convolve(x, weight, bias, 0, height)
        assert result.is_contiguous(memory_format=torch.channels_last)
        without = convolve(x, weight, None, 0, height)
    expected = F.conv2d(x, weight, padding=taps // 2, groups=form[2])
    torch.testing.assert_close(without, expected, rtol=0, atol=3e-4)
    torch.testing.assert_close(result, expected + bias[:, None, None], rtol=0, atol=3e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("taps", [3, 5])
def test_rows_of_a_map(form, taps):
    x, weight, bias = maps(*form, taps, 30, 21)
    with torch.no_grad():
        whole = convolve(x, weight, bias, 0, 30)
        for first, stop in ((0, 7), (1, 12), (12, 30), (29, 30)):
            low, high = max(0, first - taps // 2), min(30, stop + taps // 2)
            place = torch.empty_like(whole[:, :, first:stop])
            with offered(place):
                part = convolve(x[:, :, low:high], weight, bias, first - low, stop - first)
            assert part.data_ptr() == place.data_ptr()
            assert torch.equal(part, whole[:, :, first:stop])


@pytest.mark.parametrize("threads", [1, 3])
def test_equal_with_any_number_of_threads(threads):
    x, weight, bias = maps(48, 2, 24, 3, 50, 33)
    before = torch.get_num_threads()
    with torch.no_grad():
        expected = convolve(x, weight, bias, 0, 50)
        torch.set_num_threads(threads)
        try:
            assert torch.equal(convolve(x, weight, bias, 0, 50), expected)
        finally:
            torch.set_num_threads(before)


def test_a_layer_takes_it_in_inference_only(monkeypatch):
    calls = []
    monkeypatch.setattr(depthwise, "convolve", lambda *args: calls.append(1) or convolve(*args))
    x, layer = torch.randn(1, 16, 6, 5), SmallConv(16, 16, 3, groups=16)
    expected = F.conv2d(x, layer.weight, layer.bias, padding=1, groups=16)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x).requires_grad
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        with for_export():
            layer(x)
        assert not calls
        torch.testing.assert_close(layer(x), expected.detach())
    assert calls


@pytest.mark.parametrize(
    ("outputs", "inputs", "taps", "groups"),
    [(48, 1, 7, 48), (32, 4, 3, 8), (8, 48, 3, 1), (19, 1, 3, 19), (96, 1, 3, 48)],
)
def test_others_do_not_suit(outputs, inputs, taps, groups):
    x, weight, _ = maps(outputs, inputs, groups, taps, 9, 9)
    with torch.no_grad():
        assert not suits(x, weight, groups)
        assert not suits(x.double(), weight.double(), groups)
