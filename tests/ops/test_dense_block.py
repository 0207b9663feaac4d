"""Dense blocks whose rows come in turn."""

import itertools

import pytest
import torch

from llie.archs.drbn import RDB
from llie.ops import dense_block, integers, winograd_kernel
from llie.ops.fusion import fuse

pytestmark = pytest.mark.skipif(not dense_block.works(), reason="needs a C compiler: install gcc or clang")


def in_portions(block: dense_block.DenseBlock, x: torch.Tensor, added: torch.Tensor, stops: list[int]) -> torch.Tensor:
    """The block's result, in portions that end with the given rows."""
    in_turn, known, parts = block.begin(), 0, []
    for first, stop in itertools.pairwise([0, *stops]):
        now = min(stop + block.layers, x.shape[2])
        parts.append(in_turn(x[:, :, known:now], added[:, :, first:stop], rows=slice(first, stop)))
        assert parts[-1].shape[2] == stop - first
        known = now
    return torch.cat(parts, 2)


@pytest.mark.parametrize("convs", [1, 4])
@pytest.mark.parametrize("width", [8, 63, 600])
def test_rows_may_come_in_any_portions(monkeypatch, convs, width):
    """Each row of the result is the same; bands of columns leave no seams."""
    monkeypatch.setattr(dense_block, "VALUES", 10)
    torch.manual_seed(0)
    block = fuse(RDB(16, 8, convs).eval())
    x, added = torch.randn(2, 1, 16, 40, width)
    with torch.inference_mode():
        result = in_portions(block.fused().block, x, added, [2, 3, 9, 36, 37, 40])
        torch.testing.assert_close(result, block.plain(x) + added, atol=1e-5, rtol=0)


def test_x_must_reach_as_far_as_the_rows_need():
    block = fuse(RDB(16, 8, 2).eval()).fused().block.begin()
    with pytest.raises(ValueError, match="rows 0 to 3 and 6 rows of x do not fit"):
        block(torch.zeros(1, 16, 6, 8), rows=slice(0, 3))


def test_wide_blocks_compute_in_integers_where_wanted():
    if not winograd_kernel.has_integers():
        pytest.skip("needs a processor with AVX2 or more")
    torch.manual_seed(0)
    block = fuse(RDB(40, 40, 2).eval())
    x, added = torch.randn(2, 1, 40, 24, 40)
    with torch.inference_mode():
        exact = in_portions(block.fused().block, x, added, [10, 24])
        with integers.in_integers():
            rounded = in_portions(block.fused().block, x, added, [10, 24])
    error = (rounded - exact).norm() / exact.norm()
    assert 1e-6 < error < 1e-3
