"""Blocks of the HVI family in C: the result of PyTorch's operations, for any size, type and number of threads."""

import platform

import pytest
import torch

from llie.archs import create_network
from llie.archs.hvi_blocks import CrossBlock
from llie.ops import c_library, lighten
from llie.ops.integers import in_integers
from llie.ops.linear import integers_are_fast

if not lighten.works(torch.zeros(1)):
    pytest.skip("needs a C compiler: install gcc or clang", allow_module_level=True)


def block(channels, heads, residual=True):
    torch.manual_seed(0)
    made = CrossBlock(channels, heads, residual).eval()
    for parameter in made.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return made


def maps(channels, *size, images=1):
    return [torch.randn(images, channels, *size).to(memory_format=torch.channels_last) for _ in range(2)]


# One pixel, parts of a block of pixels, columns in parts; heads that fill vectors, or end within one.
SIZES = [(36, 2, 1, 1), (36, 2, 13, 7), (36, 1, 5, 201), (72, 4, 16, 130), (144, 8, 8, 8), (8, 2, 9, 9), (5, 1, 4, 3)]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("channels", "heads", "height", "width"), SIZES)
def test_equals_the_operations(channels, heads, height, width, residual):
    made, (x, other) = block(channels, heads, residual), maps(channels, height, width, images=2)
    expected = made.double()(x.double(), other.double()).detach()
    plain = made.float()(x, other).detach()
    with torch.no_grad():
        result = made(x, other)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert (result - expected).abs().max() < 3 * (plain - expected).abs().max() + 1e-6


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_runs(threads):
    made, (x, other), before = block(8, 2), maps(8, 83, 120), torch.get_num_threads()
    expected = made(x, other).detach()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            first, second = made(x, other), made(x, other)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [(1, 1, 1, 1, 1, 1, 14), (2, 18), (9, 3, 8), (20,)])
@pytest.mark.parametrize(("threads", "width"), [(1, 201), (2, 130), (2, 5)])
def test_rows_that_come_in_turn(steps, threads, width):
    made, (x, other), before = block(36, 2), maps(36, 20, width), torch.get_num_threads()
    weights, mix, first = made._weights(), 0.1 * torch.randn(1, 36, 36), 0
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            in_turn, found = lighten.Lightened(tuple(x.shape), True, weights, 1e-6), []
            for step in steps:
                come = slice(first and first + 3, min(first + step + 3, 20))
                found.append(in_turn(x[:, :, come], other[:, :, come], mix, slice(first, first + step)))
                first += step
            whole = lighten.lightened(x, other, mix, True, weights, 1e-6)
    finally:
        torch.set_num_threads(before)
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in found)
    assert torch.equal(torch.cat(found, 2), whole)


def test_large_and_invalid_values():
    """The hyperbolic tangent ends at 1; a pixel that is no number spoils what depends on it, and nothing else."""
    made, (x, other) = block(8, 2), maps(8, 20, 20)
    made.enhance.dwconv1.weight.data.mul_(1000)
    expected = made(x, other).detach()
    with torch.no_grad():
        torch.testing.assert_close(made(x, other), expected, atol=1e-4, rtol=1e-5)
        mix = 0.1 * torch.randn(1, 8, 8)
        other[0, 3, 10, 10] = float("nan")
        result = lighten.lightened(x, other, mix, True, made._weights(), 1e-6)
    missing = torch.zeros(20, 20, dtype=torch.bool)
    missing[7:14, 7:14] = True
    assert torch.equal(result.isnan().any(1)[0], missing)


def test_other_types_and_layouts():
    made, (x, other) = block(8, 2), maps(8, 12, 10)
    expected = made(x, other).detach()
    with torch.no_grad():
        torch.testing.assert_close(made(x.contiguous(), other.contiguous()), expected, atol=1e-5, rtol=0)
        assert not lighten.works(x.double())
        torch.testing.assert_close(made.double()(x.double(), other.double()).float(), expected, atol=1e-5, rtol=0)
        made.float()
        with torch.autocast("cpu", torch.bfloat16):
            half = made(x.bfloat16(), other.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(("channels", "heads"), [(36, 2), (5, 1)])
def test_bfloat16_loses_no_more_than_the_operations(monkeypatch, channels, heads):
    made, (x, other) = block(channels, heads), maps(channels, 24, 30)
    expected = made(x, other).detach()
    errors = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for works in (lighten.works, lambda x: False):
            monkeypatch.setattr(lighten, "works", works)
            errors.append((made(x, other) - expected).norm() / expected.norm())
    assert 0 < errors[0] < 1.1 * errors[1]


@pytest.mark.parametrize(("channels", "heads"), [(36, 2), (9, 1)])
def test_integers_lose_less_than_bfloat16(channels, heads):
    if not integers_are_fast():
        pytest.skip("this processor has no fast products of 16-bit integers")
    made, (x, other) = block(channels, heads), maps(channels, 24, 30)
    x[0, :, 3, 3] = 0
    with torch.no_grad():
        exact = made(x, other)
        with in_integers():
            error = (made(x, other) - exact).norm() / exact.norm()
            made.enhance.project_out.weight[1, 2] = torch.nan
            spoilt = made(x, other).isnan()
    assert 1e-6 < error < 1e-3
    assert spoilt[:, 1].all() and not spoilt[:, 0].any()


def test_without_a_compiler(monkeypatch):
    def missing(source):
        raise OSError("no C compiler found")

    network, x = create_network("HVISMM", channels=[8, 8, 16, 32]).eval(), torch.rand(1, 3, 48, 40)
    with torch.no_grad():
        expected = network(x)
        monkeypatch.setattr(lighten, "compiled_library", missing)
        lighten._library.cache_clear()
        lighten._compiles.cache_clear()
        try:
            assert not lighten.works(x)
            torch.testing.assert_close(network(x), expected, atol=2e-5, rtol=0)
        finally:
            monkeypatch.undo()
            lighten._library.cache_clear()
            lighten._compiles.cache_clear()


@pytest.mark.parametrize("flag", ["-mno-avx512f", "-mno-avx512bf16"])
def test_other_processors(monkeypatch, flag):
    """The forms for processors with fewer instructions than this one, which may have them all."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("needs an x86 processor")
    made, (x, other) = block(36, 2), maps(36, 21, 19)
    expected = made(x, other).detach()
    monkeypatch.setattr(c_library, "FLAGS", (*c_library.FLAGS, flag))
    lighten._library.cache_clear()
    try:
        assert lighten._library()
        with torch.no_grad():
            torch.testing.assert_close(made(x, other), expected, atol=2e-5, rtol=0)
            half = made(x.bfloat16(), other.bfloat16())
    finally:
        monkeypatch.undo()
        lighten._library.cache_clear()
    assert (half - expected).norm() < 0.02 * expected.norm()
