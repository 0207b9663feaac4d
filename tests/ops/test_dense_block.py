"""Dense blocks whose rows come in turn."""

import pytest
import torch

from llie.archs.drbn import RDB
from llie.ops import dense_block, pointwise
from llie.ops.fusion import fuse


@pytest.mark.skipif(not pointwise.works(), reason="needs a C compiler: install gcc or clang")
@pytest.mark.parametrize("convs", [1, 4])
def test_rows_may_come_in_any_portions(monkeypatch, convs):
    """Whatever is known and asked for, each row of the result is the same; bands of columns leave no seams."""
    monkeypatch.setattr(dense_block, "COLUMNS", 20)
    torch.manual_seed(0)
    block = fuse(RDB(16, 8, convs).eval())
    x, added = torch.randn(2, 1, 16, 40, 63)
    with torch.inference_mode():
        expected = block.plain(x) + added
        in_turn = block.fused().block.begin()
        known, parts = 0, []
        for now, rows in [(6, 2), (7, 3), (20, 9), (40, 36), (40, 37), (40, 40)]:
            first = sum(part.shape[2] for part in parts)
            parts.append(in_turn(x[:, :, known:now], added[:, :, first:rows], rows=slice(first, rows)))
            known = now
    assert [part.shape[2] for part in parts] == [2, 1, 6, 27, 1, 3]
    torch.testing.assert_close(torch.cat(parts, 2), expected, atol=1e-5, rtol=0)
