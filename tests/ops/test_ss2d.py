import pytest
import torch

from llie.errors import UserError
from llie.ops import ss2d as module
from llie.ops.selective_scan import backends, selective_scan
from llie.ops.ss2d import ss2d
from tests.golden.compare import assert_near

BACKENDS = backends.available("cpu")


def example(height=5, width=7, batch=2, channels=6, states=4, rank=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "x": (batch, height, width, channels),
        "x_proj": (4, rank + 2 * states, channels),
        "dt_proj": (4, channels, rank),
        "dt_bias": (4, channels),
        "A_log": (4, channels, states),
        "D": (4, channels),
    }
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}


def by_copies(x, x_proj, dt_proj, dt_bias, A_log, D):
    """Four reordered copies, four separate scans, four results put back."""
    height, width = x.shape[1:3]
    rows = torch.arange(height * width).view(height, width)
    total = 0
    for k, order in enumerate([rows.flatten(), rows.T.flatten(), rows.flatten().flip(0), rows.T.flatten().flip(0)]):
        u = x.flatten(1, 2)[:, order].transpose(1, 2)
        rank, states = dt_proj.shape[2], A_log.shape[2]
        r, B, C = (x_proj[k] @ u).split([rank, states, states], 1)
        y = selective_scan(u, dt_proj[k] @ r, -A_log[k].exp(), B, C, D[k], None, dt_bias[k], True, backend="torch")
        total = total + y[:, :, order.argsort()]
    return total.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 40), (40, 1), (9, 33)])
@pytest.mark.parametrize("together", [2**27, 0], ids=["together", "one by one"])
def test_equals_four_reordered_scans(backend, size, together, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", together)
    inputs = {name: t.requires_grad_() for name, t in example(*size).items()}
    y, expected = ss2d(**inputs, backend=backend), by_copies(**inputs)
    assert_near(y, expected, 5e-6)
    leaves = list(inputs.values())
    weight = torch.cos(torch.arange(y.numel())).view_as(y)
    ours, theirs = (torch.autograd.grad((t * weight).sum(), leaves) for t in (y, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert_near(a, b)


def test_gradcheck():
    inputs = tuple(t.requires_grad_() for t in example(3, 2, channels=2, states=2, dtype=torch.float64).values())
    torch.autograd.gradcheck(ss2d, inputs)


def test_transposing_the_image_swaps_rows_and_columns():
    inputs = example()
    swapped = {name: t[[1, 0, 3, 2]] if name != "x" else t.transpose(1, 2) for name, t in inputs.items()}
    assert_near(ss2d(**swapped).transpose(1, 2), ss2d(**inputs), 5e-6)


def test_result_is_float32_under_autocast():
    inputs = example()
    with torch.autocast("cpu", torch.bfloat16):
        y = ss2d(**inputs)
    assert y.dtype == torch.float32
    assert (y - ss2d(**inputs)).abs().max() < 0.05 * y.abs().max()


@pytest.mark.parametrize(("name", "shape"), [("x", (5, 7, 6)), ("x_proj", (4, 9, 6)), ("dt_bias", (24,)), ("D", (24,))])
def test_bad_shapes(name, shape):
    with pytest.raises(UserError, match=name):
        ss2d(**{**example(), name: torch.ones(shape)})
