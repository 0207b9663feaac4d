"""Winograd's convolutions against the direct form: values, gradients, and where they step aside."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import llie.ops.winograd
from llie.ops.exporting import for_export
from llie.ops.fusion import fuse
from llie.ops.integers import in_integers
from llie.ops.winograd import Conv3x3, Kernels, convolve_3x3, pays, winograd, winograd_into, winograd_of_rows
from llie.ops.winograd_matrices import Output


def tensors(shape, outputs, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    sizes = (shape, (outputs, shape[1], 3, 3), (outputs,))
    return [torch.randn(size, dtype=dtype, generator=generator).requires_grad_() for size in sizes]


def direct(x, weight, bias=None):
    return F.conv2d(x, weight, bias, padding=1)


# Whole tiles and parts of tiles, one image and several, more tiles than are worked on at a time.
SHAPES = [((1, 3, 8, 12), 2), ((2, 3, 13, 10), 5), ((5, 2, 3, 1), 1), ((1, 1, 48, 44), 2), ((200, 1, 4, 5), 1)]


@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
def test_equals_the_direct_form(shape, outputs):
    inputs = tensors(shape, outputs)
    result, expected = winograd(*inputs), direct(*inputs)
    torch.testing.assert_close(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)
    weights = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(*(torch.autograd.grad(each, inputs, weights) for each in (result, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_and_their_gradients():
    inputs = tensors((2, 2, 5, 4), 2)
    assert torch.autograd.gradcheck(winograd, inputs)
    assert torch.autograd.gradgradcheck(winograd, inputs)


@pytest.fixture(params=["matrices", "kernel"])
def form(request, monkeypatch):
    """In C, or by matrix products alone."""
    if request.param == "matrices":
        monkeypatch.setattr(llie.ops.winograd, "_kernel_works", lambda: False)
    elif not llie.ops.winograd._kernel_works():
        pytest.skip("needs a C compiler: install gcc or clang")
    return request.param


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("shape", "outputs"), [*SHAPES, ((2, 36, 21, 30), 16), ((1, 64, 32, 32), 67), ((1, 256, 9, 9), 260)]
)
def test_rounding_is_near_that_of_the_direct_form(layout, shape, outputs, form):
    x, weight, bias = tensors(shape, outputs, torch.float32)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    inputs = (x, weight, bias)
    exact, result = direct(*(each.double() for each in inputs)), winograd(*inputs)
    gradients = (torch.autograd.grad(each.square().sum(), inputs) for each in (result, exact))
    for ours, theirs in [(result, exact), *zip(*gradients, strict=True)]:
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_in_every_run(threads, form):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, weight, bias = tensors((2, 24, 37, 50), 16, torch.float32)
        runs = []
        for _ in range(3):
            result = winograd(x, weight, bias)
            runs.append((result, *torch.autograd.grad(result.square().sum(), (x, weight, bias))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


def test_a_layer_of_a_network(form):
    torch.manual_seed(0)
    layer, x = Conv3x3(64, 64), torch.rand(1, 64, 32, 32)
    expected = direct(x, layer.weight, layer.bias)
    result = layer(x)
    assert "Winograd" in type(result.grad_fn).__name__
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        assert pays(x, layer.weight) == (form == "kernel")  # matrix products alone pay with more channels
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    compiled = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(compiled(x), expected)


def test_a_frozen_kernel_is_transformed_once_and_keeps_no_image():
    x, weight, bias = tensors((1, 2, 8, 8), 3)
    weight, bias = weight.detach(), bias.detach()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(saved) or saved, lambda saved: saved):
        result = winograd(x, weight, bias, Kernels(weight))
    assert all(saved is None or saved.shape != x.shape for saved in kept)
    (ours,), (theirs,) = (torch.autograd.grad(each.sin().sum(), x) for each in (result, direct(x, weight, bias)))
    torch.testing.assert_close(ours, theirs)


def test_a_fused_layer_transforms_its_kernel_once_and_notices_changes(monkeypatch):
    in_c()
    layer, x = fuse(nn.Sequential(Conv3x3(16, 16))).eval(), torch.rand(1, 16, 32, 32)
    original, transformed = llie.ops.winograd.winograd_kernel.at_points, []
    monkeypatch.setattr(
        llie.ops.winograd.winograd_kernel,
        "at_points",
        lambda *args, **kw: transformed.append(1) or original(*args, **kw),
    )
    with torch.no_grad():
        for _ in range(3):
            layer(x)
        assert len(transformed) == 1
        layer[0].weight.mul_(2)
        torch.testing.assert_close(layer(x), direct(x, layer[0].weight, layer[0].bias), rtol=0, atol=1e-5)
    assert layer(x).requires_grad
    copied = copy.deepcopy(layer)
    with torch.no_grad():
        copied[0].weight.zero_()
        assert torch.equal(copied(x)[0, :, 0, 0], copied[0].bias)


@pytest.mark.parametrize("shape", [(2, 3, 9, 10), (1, 24, 21, 30)])
@pytest.mark.parametrize(("first", "stop"), [(0, 5), (3, 4), (2, 8), (4, 9), (0, 9)])
def test_rows_of_a_map(shape, first, stop, form):
    x, weight, bias = (each.detach() for each in tensors(shape, 17, torch.float32))
    low = max(0, first - 1)
    result = winograd_of_rows(x[:, :, low : stop + 1], Kernels(weight), bias, first - low, stop - first)
    expected = direct(x, weight, bias)[:, :, first:stop]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 9, 10), (1, 24, 21, 30), (3, 8, 5, 1)])
def test_channels_go_to_several_maps_with_additions(shape, form):
    x, weight, bias = (each.detach() for each in tensors(shape, 27, torch.float32))
    size = (len(x), 24, *x.shape[2:])
    sums, given = (torch.randn(size).to(memory_format=torch.channels_last) for _ in range(2))
    expected = direct(x, weight, bias).split([11, 8, 8], dim=1)
    expected = [(expected[0] + given[:, 5:16]).relu(), expected[1] + sums[:, 8:16], expected[2].relu()]
    own = torch.empty_like(sums[:, :11], memory_format=torch.channels_last)
    untouched = sums[:, :8].clone()
    outputs = [
        Output(own, given[:, 5:16], relu=True),
        Output(sums[:, 8:16], sums[:, 8:16]),
        Output(sums[:, 16:], relu=True),
    ]
    winograd_into(x, Kernels(weight), bias, outputs)
    for output, each in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output.to, each, rtol=0, atol=1e-4)
    assert torch.equal(sums[:, :8], untouched)


@pytest.mark.parametrize("channels", [(5, 6), (9, 24), (32, 8)])
def test_two_maps_side_by_side_to_every_second_pixel(channels, form):
    x, weight, bias = (each.detach() for each in tensors((2, sum(channels), 9, 10), 20, torch.float32))
    expected = F.leaky_relu(direct(x, weight, bias), 0.1).split([8, 12], dim=1)
    maps = [torch.zeros(2, c, 18, 20).contiguous(memory_format=torch.channels_last) for c in (8, 12)]
    places = [maps[0][:, :, 1::2, ::2], maps[1][:, :, ::2, 1::2]]
    first, more = x.split(channels, dim=1)
    winograd_into(first, Kernels(weight), bias, [Output(to, relu=True, slope=0.1) for to in places], more)
    for place, whole, each in zip(places, maps, expected, strict=True):
        torch.testing.assert_close(place, each, rtol=0, atol=1e-4)
        assert whole.count_nonzero() <= each.numel()


@pytest.mark.parametrize("size", [3, 64])  # direct, and by Winograd
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_map_is_added_in_one_step_or_two(size, relu, dtype, monkeypatch):
    monkeypatch.setattr(llie.ops.winograd, "multiplies_bfloat16_in_tiles", lambda: False)
    x, weight, bias = tensors((1, 24, size, size), 24, torch.float32)
    added = torch.randn(1, 24, size, size, requires_grad=True)
    expected = direct(x, weight, bias) + added
    expected = expected.relu() if relu else expected
    close = {"rtol": 0.02, "atol": 0.1} if dtype == torch.bfloat16 else {"rtol": 0, "atol": 1e-4}
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        kept, given = added.detach().clone(), added.to(dtype)
        result = convolve_3x3(x, weight, bias, relu=relu, added=given)
        with torch.no_grad():
            in_one_step = convolve_3x3(x, weight, bias, None, relu, given)
    assert torch.equal(added, kept)
    torch.testing.assert_close(result.float(), expected, **close)
    torch.testing.assert_close(in_one_step.float(), expected, **close)
    weights = torch.randn(result.shape)
    (ours,) = torch.autograd.grad(result.float(), added, weights)
    theirs = weights * (result > 0) if relu else weights
    torch.testing.assert_close(ours, theirs, rtol=0.01 if dtype == torch.bfloat16 else 0, atol=0)


@pytest.mark.parametrize("size", [(3, 5), (33, 64), (17, 39)])  # direct, and by Winograd, with parts of tiles
@pytest.mark.parametrize(("channels", "first", "outputs"), [(24, 5, 17), (24, 16, 17), (128, 16, 130)])  # matrices: 128
def test_beyond_the_edges_may_be_the_outermost_values(size, channels, first, outputs, form):
    torch.manual_seed(0)
    layer, x = Conv3x3(channels, outputs, padding_mode="replicate"), torch.randn(2, channels, *size)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)
    parts = x.split([first, channels - first], dim=1)
    layer.fuse()
    with torch.no_grad():
        torch.testing.assert_close(layer(parts[0], more=parts[1]), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(layer(x, relu=True), expected.relu(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [3, 64])  # direct, and by Winograd
@pytest.mark.parametrize("first", [5, 16])
def test_the_input_may_be_two_maps(size, first):
    x, weight, bias = tensors((2, 24, size, size), 17, torch.float32)
    expected = direct(x, weight, bias)
    parts = x.detach().split([first, 24 - first], dim=1)
    for part in parts:
        part.requires_grad_()
    result = convolve_3x3(parts[0], weight, bias, more=parts[1])
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(convolve_3x3(parts[0], weight, bias, more=parts[1]), expected, rtol=0, atol=1e-4)
        mixed = convolve_3x3(parts[0].double(), weight.double(), bias.double(), more=parts[1])
        torch.testing.assert_close(mixed.float(), expected, rtol=0, atol=1e-4)
    weights = torch.randn(result.shape)
    (theirs,) = torch.autograd.grad(expected, x, weights)
    ours = torch.cat(torch.autograd.grad(result, parts, weights), dim=1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def in_c():
    if not llie.ops.winograd._kernel_works():
        pytest.skip("needs a C compiler: install gcc or clang")


@pytest.mark.parametrize("channels", [3, 24, 36])
def test_bfloat16_maps_round_only_the_result(channels):
    in_c()
    x, weight, bias = tensors((2, channels, 13, 10), 20, torch.float32)
    x = x.detach().bfloat16().requires_grad_()
    inputs = (x, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        result = winograd(*inputs)
    exact = direct(*(each.double() for each in inputs))
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), exact, rtol=0.004, atol=1e-4)  # half a unit of 8 bits
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    ours = torch.autograd.grad(result, inputs, weights)
    theirs = torch.autograd.grad(exact, inputs, weights.double())
    for our, their, source in zip(ours, theirs, inputs, strict=True):
        assert our.dtype == source.dtype
        torch.testing.assert_close(our, their.to(our.dtype), rtol=0.008, atol=1e-3)


def test_autocast_in_and_out_of_bfloat16(monkeypatch):
    in_c()
    monkeypatch.setattr(llie.ops.winograd, "multiplies_bfloat16_in_tiles", lambda: False)
    torch.manual_seed(0)
    layer, x = Conv3x3(32, 32), torch.rand(1, 32, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(layer(x))
    assert "Winograd" in type(result.grad_fn).__name__
    expected = direct(direct(x, layer.weight, layer.bias), layer.weight, layer.bias)
    torch.testing.assert_close(result.float(), expected, rtol=0.02, atol=0.01)
    result.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    monkeypatch.setattr(llie.ops.winograd, "multiplies_bfloat16_in_tiles", lambda: True)
    assert not pays(x.bfloat16(), layer.weight.bfloat16())  # such processors are faster with the direct form


def test_it_pays_only_for_large_float32_on_a_cpu():
    x, weight = torch.rand(1, 64, 32, 32), torch.rand(64, 64, 3, 3)
    assert pays(x, weight)
    assert pays(x, weight.clone().requires_grad_())
    assert not pays(x.double(), weight.double())
    assert not pays(x.half(), weight.half())
    assert not pays(x.bfloat16(), weight)
    assert not pays(x[:, :, :28].bfloat16(), weight.bfloat16())
    assert not pays(x[:, :, :8, :8], weight)
    assert not pays(x, weight[:, :, :1, :1])
    assert not pays(x[:, :7], weight[:, :7])
    assert not pays(x[:, :, :16], weight.clone().requires_grad_())
    assert not pays(x.to("meta"), weight)
    with torch.autocast("cpu", torch.float16):
        assert not pays(x, weight)
    with for_export():
        assert not pays(x, weight)


@pytest.mark.parametrize("gradients", [False, True])
def test_relu(gradients, form):
    x, weight, bias = tensors((2, 64, 33, 34), 64, torch.float32)
    with torch.set_grad_enabled(gradients):
        result = convolve_3x3(x, weight, bias, relu=True)
        torch.testing.assert_close(result, direct(x, weight, bias).relu(), rtol=0, atol=1e-3)
        bad = convolve_3x3(x.detach().index_fill(1, torch.tensor(3), torch.nan), weight, bias, relu=True)
    assert bad.isnan().all()  # a network that has broken down shows it


def in_fast_integers():
    in_c()
    if not llie.ops.winograd.winograd_kernel.has_integers():
        pytest.skip("this processor has no fast products of 16-bit integers")


@pytest.mark.parametrize("shape", [(36, 36, 21, 30), (37, 75, 20, 21), (300, 40, 21, 22), (64, 64, 40, 40)])
def test_integers_keep_three_digits(shape):
    in_fast_integers()
    torch.manual_seed(0)
    inputs, outputs, height, width = shape
    layer, x = fuse(Conv3x3(inputs, outputs)), torch.randn(2, inputs, height, width)
    x[1] *= 1e-20
    with torch.no_grad():
        layer.bias.zero_()
        exact = direct(x.double(), layer.weight.double())
        with in_integers():
            found = layer(x)
    error = (found - exact).square().mean((1, 2, 3)).sqrt() / exact.square().mean((1, 2, 3)).sqrt()
    assert error.min() > 1e-5 and error.max() < 2e-3


def test_integers_show_what_is_not_finite():
    in_fast_integers()
    layer, x = fuse(Conv3x3(40, 40)), torch.randn(1, 40, 32, 32)
    x[0, 3, 9, 9] = torch.nan
    with torch.no_grad(), in_integers():
        lost = layer(x).isnan()
    assert lost[0, :, 8:11, 8:11].all() and not lost[0, :, :4].any()


def test_kernels_that_are_not_kept_are_not_rounded():
    in_fast_integers()
    layer, x = Conv3x3(40, 40), torch.randn(1, 40, 32, 32)
    with torch.no_grad():
        exact = layer(x)
        with in_integers():
            assert torch.equal(layer(x), exact)
            fuse(layer)
            assert not torch.equal(layer(x), exact)
