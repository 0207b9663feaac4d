"""The scan in blocks of rows, against the scan of the whole image."""

import pytest
import torch
from torch.nn import functional as F

from llie.ops import ss2d_blocks
from llie.ops.selective_scan import backends
from llie.ops.selective_scan.core import carry, project, project_ends, projections, scan
from llie.ops.ss2d import ss2d
from llie.ops.ss2d_blocks import BlockScan, Weights
from tests.golden.compare import assert_near
from tests.ops.test_ss2d import example

BACKENDS = backends.available("cpu")


def operands(channels, groups=1):
    """Input, weights and a state of a scan with 5 states and rank 2."""
    torch.manual_seed(0)
    weights = [torch.randn(groups, 12, channels) / 3, torch.randn(groups, channels, 2), torch.randn(groups, channels)]
    return (
        torch.randn(3, 40, 1, channels),
        [*weights, -torch.rand(groups, channels, 5)],
        torch.randn(3, groups, 5, channels),
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [19, 32])
@pytest.mark.parametrize("threads", [1, 5])
def test_a_scan_with_its_projections(backend, channels, threads):
    u, (x_proj, dt_proj, bias, A), _ = operands(channels, groups=4)
    state, y, before = torch.zeros(3, 4, 5, channels), torch.randn(3, channels, 40, 1), torch.get_num_threads()
    y = y.permute(0, 2, 3, 1)  # in another layout
    directions = [0, 1, 2, 3]
    delta, B, C = projections(u, x_proj, dt_proj)
    expected, last = scan(u, delta, A, B, C, bias, True, directions, 8, backend="torch")
    expected = expected + y
    torch.set_num_threads(threads)
    try:
        project(u, x_proj, dt_proj, bias, A, directions, 8, y, state, backend)
    finally:
        torch.set_num_threads(before)
    assert_near(y, expected, 2e-6)
    assert_near(state, last.transpose(2, 3), 2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("direction", [0, 2])
def test_a_scan_continues_where_another_ended(backend, direction):
    u, weights, expected_state = operands(19)
    state, expected, y = expected_state.clone(), torch.zeros_like(u), torch.zeros_like(u)
    project(u, *weights, [direction], 0, expected, expected_state, backend)
    order = [slice(0, 17), slice(17, 40)]
    for part in order if direction == 0 else order[::-1]:
        project(u[:, part], *weights, [direction], 0, y[:, part], state, backend)
    assert_near(y, expected, 1e-6)
    assert_near(state, expected_state, 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [19, 32])
@pytest.mark.parametrize("direction", [0, 2])
def test_the_end_of_a_scan_without_its_results(backend, channels, direction):
    u, weights, expected = operands(channels)
    state, steps = expected.clone(), torch.rand(3, 1, channels)
    later = steps.clone()
    project(u, *weights, [direction], 0, torch.zeros_like(u), expected, backend)
    project_ends(u, *weights, [direction], state, later, backend=backend)
    x_proj, dt_proj, bias, A = weights
    assert_near(state, expected * (A.transpose(1, 2) * steps[:, :, None]).exp(), 1e-6)
    assert_near(later - steps, F.softplus(projections(u, x_proj, dt_proj)[0] + bias).sum(1), 1e-6)


@pytest.mark.parametrize("channels", [19, 32])
def test_the_end_of_a_scan_without_what_has_decayed(channels):
    u, weights, _ = operands(channels)
    u, weights[2], weights[3] = u.repeat(1, 5, 1, 1), weights[2] + 3, weights[3] - 0.1
    expected, state = torch.zeros(3, 1, 5, channels), torch.zeros(3, 1, 5, channels)
    every, steps = torch.zeros(3, 1, channels), torch.zeros(3, 1, channels)
    project_ends(u, *weights, [0], expected, every)
    project_ends(u, *weights, [0], state, steps, least=1e-10)
    assert_near(state, expected, 1e-7)
    assert (steps < 0.9 * every).any() and (weights[3].transpose(1, 2) * steps[:, :, None]).exp().max() < 1e-9


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [19, 32])
def test_states_are_carried_through_stretches(backend, channels):
    torch.manual_seed(0)
    rates, steps = -torch.rand(5, channels), 3 * torch.rand(4, channels)
    start, zero = torch.randn(4, 5, channels), torch.randn(4, 5, channels)
    expected = (rates * steps[:, None]).exp() * start + zero
    state, own = start.clone(), zero.clone()
    carry(rates, steps, state, own, backend=backend)
    assert_near(own, expected, 1e-6)
    assert torch.equal(state, start)
    own = zero.clone()
    carry(rates, steps, state, own, swap=True, backend=backend)
    assert_near(state, expected, 1e-6)
    assert torch.equal(own, start)


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
