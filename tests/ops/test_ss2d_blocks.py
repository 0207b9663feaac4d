"""The scan in blocks of rows, against the scan of the whole image."""

import pytest
import torch
from torch.nn import functional as F

from llie.ops import ss2d_blocks
from llie.ops.selective_scan import backends
from llie.ops.selective_scan.core import ends, resume, scan
from llie.ops.ss2d import ss2d
from llie.ops.ss2d_blocks import BlockScan, Weights
from tests.golden.compare import assert_near
from tests.ops.test_ss2d import example

BACKENDS = backends.available("cpu")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("direction", [0, 2])
def test_a_scan_continues_where_another_ended(backend, direction):
    torch.manual_seed(0)
    u, delta, B, C = (torch.randn(3, 40, 1, n) for n in (19, 19, 5, 5))
    A, bias = -torch.rand(1, 19, 5), torch.randn(1, 19)
    expected, last = scan(u, delta, A, B, C, bias, True, [direction], backend=backend)
    state, parts = torch.zeros(3, 1, 19, 5), []
    order = [slice(0, 17), slice(17, 40)]
    for part in order if direction == 0 else order[::-1]:
        now = [t[:, part] for t in (u, delta, B, C)]
        y, state = resume(state, *now[:2], A, *now[2:], bias, [direction], backend=backend)
        parts.append(y)
    assert_near(torch.cat(parts if direction == 0 else parts[::-1], 1), expected, 1e-6)
    assert_near(state, last, 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [19, 32])
@pytest.mark.parametrize("direction", [0, 2])
def test_the_end_of_a_scan_without_its_results(backend, channels, direction):
    torch.manual_seed(0)
    u, delta, B, C = (torch.randn(3, 40, 1, n) for n in (channels, channels, 5, 5))
    A, bias, state = -torch.rand(1, channels, 5), torch.randn(1, channels), torch.randn(3, 1, channels, 5)
    _, expected = resume(state, u, delta, A, B, C, bias, [direction], backend=backend)
    last, steps = ends(state, u, delta, A, B, bias, [direction], backend=backend)
    assert_near(last, expected, 1e-6)
    assert_near(steps, F.softplus(delta + bias).sum(1), 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("height", "width", "rows"), [(23, 17, 4), (16, 5, 8), (5, 3, 8), (1, 9, 4), (9, 1, 2)])
def test_blocks_give_the_scan_of_the_whole_image(backend, height, width, rows, monkeypatch):
    monkeypatch.setattr(ss2d_blocks, "CHUNK", 150)  # several pieces in a block
    inputs = example(height, width, batch=1, channels=6, states=4)
    expected = ss2d(**inputs, backend=backend).permute(0, 3, 1, 2)
    x = inputs.pop("x").permute(0, 3, 1, 2)
    blocks = BlockScan(lambda: Weights(**inputs, backend=backend), 4, 6, width, rows)

    described = torch.cat([blocks.describe(part) for part in x.split(2 * rows, 2)], 2)
    assert described.shape == (1, 1, -(-height // rows), blocks.size)
    top = bottom = None
    for part in x.split(3, 2):  # any rows will do here
        top = blocks.follow(top, part)
    for part in described.split(2, 2):
        bottom = blocks.compose(bottom, part)
    entering, state = [], blocks.first_states(bottom, backwards=True)
    for part in described.split(2, 2)[::-1]:
        states, state = blocks.from_below(part, state)
        entering.insert(0, states)
    run = blocks.begin(blocks.first_states(top, backwards=False))
    parts = zip(x.split(2 * rows, 2), torch.cat(entering, 2).split(2, 2), strict=True)
    assert_near(torch.cat([run(*part) for part in parts], 2), expected, 5e-6)


def test_rows_that_have_decayed_are_left_out(monkeypatch):
    monkeypatch.setattr(ss2d_blocks, "CHUNK", 60)  # two rows at a time
    inputs = example(30, 5, batch=1, channels=6, states=4)
    inputs["dt_bias"] = inputs["dt_bias"] + 4
    x = inputs.pop("x").permute(0, 3, 1, 2)
    blocks = BlockScan(lambda: Weights(**inputs, backend="auto"), 4, 6, 5, 30)
    _, expected = blocks._unpacked(blocks.describe(x)[0, 0, 0])
    monkeypatch.setattr(ss2d_blocks, "FORGOTTEN", 0.0)
    _, row = blocks._unpacked(blocks.describe(x)[0, 0, 0])
    assert_near(row.own, expected.own, 1e-7)
    assert (expected.steps < 0.9 * row.steps).all()
