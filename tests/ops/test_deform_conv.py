import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F
from torchvision.ops import deform_conv2d as oracle

from llie.errors import UserError
from llie.ops import DeformConv2d, deform_conv2d
from tests.golden.compare import assert_near


def draw(batch=2, channels=5, outputs=4, size=(9, 11), k=3, stride=1, padding=1, dilation=1, spread=2.0, **kind):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(kind.get("dtype", torch.float32))

    out = [(side + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for side in size]
    return {
        "x": normal(batch, channels, *size),
        "offset": spread * normal(batch, 2 * k * k, *out),
        "weight": normal(outputs, channels, k, k) / k,
        "bias": normal(outputs),
        "mask": normal(batch, k * k, *out).sigmoid(),
    }


@pytest.mark.parametrize("backend", ["auto", "torchvision"])
@pytest.mark.parametrize("case", range(3))
def test_golden(golden, case, backend, monkeypatch):
    vector = golden("hdm_dcn")
    module = DeformConv2d(vector.meta["cases"][case]["in_channels"], vector.meta["cases"][case]["out_channels"])
    prefix = f"case{case}."  # the names of the CUDA operator, loaded as they are
    module.load_state_dict({k.removeprefix(prefix): v for k, v in vector.state_dict().items() if k.startswith(prefix)})
    x = vector[f"case{case}_input"].requires_grad_()
    if backend == "auto":
        out = module(x)
    else:
        offset, mask = module.conv_offset_mask(x).split([18, 9], 1)
        assert_near(offset, vector[f"case{case}_offset"])
        assert_near(mask.sigmoid(), vector[f"case{case}_mask"])
        out = deform_conv2d(x, offset, module.weight, module.bias, padding=1, mask=mask.sigmoid(), backend=backend)
    assert_near(out, vector[f"case{case}_output"])
    (out * vector[f"case{case}_probe"]).sum().backward()
    for name, tensor in {"input": x, **dict(module.named_parameters())}.items():
        expected = vector.arrays.get(f"case{case}_grad_{name.replace('.', '_')}")
        if expected is not None:
            assert_near(tensor.grad, expected, of=name)


@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"stride": 2},
        {"k": 5, "padding": 2},
        {"dilation": 2, "padding": 2},
        {"k": 1, "padding": 0},
        {"padding": 0},
        {"size": (40, 37)},  # more rows than are sampled at once
        {"size": (1, 1)},
        {"spread": 30.0},  # far outside
    ],
)
def test_equals_torchvision_forward_and_backward(geometry):
    tensors = draw(**geometry)
    settings = {name: geometry.get(name, default) for name, default in (("stride", 1), ("padding", 1), ("dilation", 1))}
    gradients = []
    for function in (deform_conv2d, oracle):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
        out = function(**({"input" if function is oracle else "x": leaves.pop("x")}), **leaves, **settings)
        gradients.append([out, *torch.autograd.grad(out.square().sum(), list(leaves.values()))])
    for ours, theirs in zip(*gradients, strict=True):
        assert_near(ours, theirs)


@pytest.mark.parametrize(
    "geometry",
    [{}, {"stride": 2}, {"k": 5, "padding": 2}, {"dilation": 2, "padding": 2}, {"size": (40, 37)}, {"spread": 30.0}],
)
@pytest.mark.parametrize(("channels", "outputs"), [(8, 4), (16, 24), (13, 8)])
@torch.no_grad()
def test_equals_torchvision_without_gradients(geometry, channels, outputs):
    settings = {name: geometry.get(name, default) for name, default in (("stride", 1), ("padding", 1), ("dilation", 1))}
    for change in ({}, {"bias": None, "mask": None}):
        tensors = {**draw(channels=channels, outputs=outputs, **geometry), **change}
        x = tensors.pop("x")
        assert_near(deform_conv2d(x, **tensors, **settings), oracle(x, **tensors, **settings))


@torch.no_grad()
def test_an_offset_that_is_not_finite_shows():
    tensors = draw(channels=8)
    tensors["offset"][0, 4, 2, 3] = torch.nan
    lost = deform_conv2d(**tensors, padding=1).isnan()
    assert lost[0, :, 2, 3].all() and lost.sum() == 4


def test_gradcheck():
    tensors = draw(1, 2, 2, (4, 5), spread=0.3, dtype=torch.float64)
    leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}

    def function(x, offset, weight, bias, mask):
        return deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)

    assert gradcheck(function, tuple(leaves.values()))


def test_without_offsets_it_is_a_convolution():
    tensors = draw()
    tensors["offset"].zero_()
    expected = F.conv2d(tensors["x"], tensors["weight"], tensors["bias"], padding=1)
    out = deform_conv2d(tensors["x"], tensors["offset"], tensors["weight"], tensors["bias"], padding=1)
    torch.testing.assert_close(out, expected)


def test_a_whole_offset_reads_another_pixel():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    offset = torch.zeros(1, 2, 3, 4)
    offset[:, 0] = 1  # vertical first
    out = deform_conv2d(x, offset, torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(out[0, 0], torch.cat((x[0, 0, 1:], torch.zeros(1, 4))))


def test_starts_as_half_a_convolution():
    module = DeformConv2d(3, 4)
    x = torch.rand(1, 3, 6, 7)
    torch.testing.assert_close(module(x), F.conv2d(x, module.weight, padding=1) / 2)


def test_autocast_moves_no_sample():
    torch.manual_seed(0)
    module, x = DeformConv2d(8, 8), torch.rand(1, 8, 12, 12)
    torch.nn.init.normal_(module.conv_offset_mask.weight)
    expected = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": torch.zeros(2, 9, 9, 11)}, "offset must have shape"),
        ({"mask": torch.zeros(2, 9, 4, 4)}, "mask must have shape"),
        ({"weight": torch.zeros(4, 3, 3, 3)}, "weight"),
        ({"x": torch.zeros(2, 5, 2, 2), "padding": 0}, "smaller than the 3x3 kernel"),
        ({"backend": "cuda"}, "backend"),
    ],
)
def test_arguments_that_do_not_fit(change, message):
    with pytest.raises(UserError, match=message):
        deform_conv2d(**{**draw(), "padding": 1, **change})
