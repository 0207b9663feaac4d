"""The scan as one differentiable operator, opaque to `torch.compile`, for all backends.

Layout, channels last: u (batch, length, groups or 1, channels); delta (batch, length, groups, channels);
A (groups, channels, states); B and C (batch, length, groups, states). If u has a single group, all groups read it and
their outputs add up, so y always has the shape of u.

`directions` is the order of each group through an image of `width` columns, stored row by row: 0 rows, 1 columns,
2 rows backwards, 3 columns backwards. Backends use indices; nothing is flipped or transposed.
"""

# No `from __future__ import annotations` here: custom_op reads the annotations as types.
import math
from typing import Any, Optional, Sequence  # noqa: UP035 - torch 2.4 reads only the one of typing

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.flop_counter import flop_registry, shape_wrapper

from llie.ops.exporting import exporting
from llie.ops.selective_scan import backends, steps

BLOCK = 32  # positions between two saved states; TILE in scan.c


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    bias: Tensor | None = None,
    softplus: bool = False,
    directions: Sequence[int] | None = None,
    width: int = 0,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Scan in the layout above, without skip or gate: y of u's shape, last state (batch, groups, channels, states)."""
    order = list(directions) if directions is not None else [0] * delta.shape[2]
    if exporting():
        y = steps.scan(u, delta, A, B, C, bias, softplus, order, width)
        return y, y.new_zeros(())  # nobody asks for the last state of an image
    tensors = (u, delta, A, B, C) if bias is None else (u, delta, A, B, C, bias)
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    y, last, _ = _Scan.apply(u, delta, A, B, C, bias, softplus, order, width, keep, backend)
    return y, last


def project(
    u: Tensor,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    directions: Sequence[int],
    width: int,
    y: Tensor,
    state: Tensor,
    backend: str = "auto",
) -> None:
    """`scan` with softplus from the weights that delta, B and C are computed with; without gradients.

    Args:
        u: (batch, length, 1, channels).
        x_proj: channels -> low-rank step size, B and C, (groups, rank + 2 states, channels).
        dt_proj: low-rank step size -> step size, (groups, channels, rank).
        dt_bias: (groups, channels).
        A: (groups, channels, states).
        directions: see above.
        width: see above.
        y: results are added to it, of the shape of u; both may have any strides.
        state: the one to begin with, (batch, groups, states, channels), contiguous; replaced by the last one.
        backend: see `scan`.
    """
    compute = backends.choose(backend, u)
    if hasattr(compute, "project"):
        compute.project(u, x_proj, dt_proj, dt_bias, A, directions, width, y, state)
        return
    delta, B, C = projections(u, x_proj, dt_proj)
    result, last, starts = _outputs(u, delta, A, keep=False)
    initial = state.transpose(2, 3).contiguous()
    compute.forward(
        u.contiguous(), delta, A, B, C, dt_bias, True, list(directions), width, result, last, starts, initial=initial
    )
    y.add_(result)
    state.copy_(last.transpose(2, 3))


def project_ends(
    u: Tensor,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    directions: Sequence[int],
    state: Tensor,
    steps: Tensor,
    least: float = 0.0,
    backend: str = "auto",
) -> None:
    """As `project`, without results and for rows only: the states some time after the ends of the lines.

    Args:
        u: see `project`, as the other tensors.
        x_proj: see there.
        dt_proj: see there.
        dt_bias: see there.
        A: see there.
        directions: see there.
        state: the one to begin with, replaced by the one after this time.
        steps: the sums of the step sizes from the ends of the lines until then, (batch, groups, channels), contiguous;
            zero for the states at the ends. Those of the lines are added.
        least: a decay that counts as zero, as do all below it; steps before it may then be missing in the sums.
        backend: see `scan`.
    """
    compute = backends.choose(backend, u)
    if hasattr(compute, "project_ends"):
        compute.project_ends(u, x_proj, dt_proj, dt_bias, A, directions, state, steps, least)
        return
    project(u, x_proj, dt_proj, dt_bias, A, directions, 0, torch.empty_like(u), state, backend)
    state.mul_((A.transpose(1, 2) * steps[:, :, None]).exp_())
    steps.add_(F.softplus(projections(u, x_proj, dt_proj)[0] + dt_bias).sum(1))


def carry(rates: Tensor, steps: Tensor, state: Tensor, own: Tensor, swap: bool = False, backend: str = "auto") -> None:
    """Carry states through stretches: `own` becomes the states at their ends, `exp(rates * steps) * state + own`.

    Args:
        rates: (states, channels).
        steps: the sum of the step sizes in each stretch, (lines, channels).
        state: those at the starts, (lines, states, channels).
        own: those at the ends after a state of zero, of the same shape.
        swap: the results take the place of the states at the starts, and these that of `own`.
        backend: see `scan`. All tensors are contiguous.
    """
    compute = backends.choose(backend, state)
    if hasattr(compute, "carry"):
        compute.carry(rates, steps, state, own, swap)
        return
    last = torch.addcmul(own, (rates * steps[:, None]).exp_(), state)
    own.copy_(state if swap else last)
    if swap:
        state.copy_(last)


def projections(u: Tensor, x_proj: Tensor, dt_proj: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Raw step sizes, B and C of every position; see `project`."""
    rank = dt_proj.shape[2]
    states = (x_proj.shape[1] - rank) // 2
    projected = F.linear(u.squeeze(2), x_proj.flatten(0, 1)).unflatten(2, (len(x_proj), -1))
    low_rank, B, C = projected.split([rank, states, states], dim=3)
    return torch.einsum("blkr,kcr->blkc", low_rank, dt_proj), B, C


def positions(direction: int, length: int, width: int, device: torch.device) -> Tensor:
    """Index of the pixel that each step of a direction visits, (length,)."""
    steps = torch.arange(length, device=device)
    if direction >= 2:
        steps = steps.flip(0)
    if direction % 2:
        height = length // width
        steps = steps % height * width + steps // height
    return steps


@torch.library.custom_op("llie::selective_scan", mutates_args=())
def _forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    bias: Optional[Tensor],  # noqa: UP045 - older torch cannot read `Tensor | None` here
    softplus: bool,
    directions: Sequence[int],
    width: int,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    y, last, starts = _outputs(u, delta, A, keep)
    if delta.numel() == 0 or A.numel() == 0:
        return y.zero_(), last.zero_(), starts.zero_()
    with torch.autocast(u.device.type, enabled=False):
        compute = backends.choose(backend, u)
        compute.forward(u, delta, A, B, C, bias, softplus, list(directions), width, y, last, starts)
    return y, last, starts


def _outputs(u: Tensor, delta: Tensor, A: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(u), *_states(u, delta, A, keep)


def _states(u: Tensor, delta: Tensor, A: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    """Room for the last state, and for those before every block."""
    batch, length, groups, channels = delta.shape
    states = A.shape[2]
    blocks = -(-length // BLOCK) if keep else 0
    last = u.new_empty(batch, groups, channels, states)
    return last, u.new_empty(blocks, batch, groups, states, channels)


@_forward.register_fake
def _(u, delta, A, B, C, bias, softplus, directions, width, keep, backend):
    return _outputs(u, delta, A, keep)


@torch.library.custom_op("llie::scan_image", mutates_args=())
def scan_image(
    u: Tensor,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    directions: Sequence[int],
    width: int,
    backend: str,
) -> Tensor:
    """`project` of an image from states of zero, plus D (channels,) times u; of the shape of u."""
    y = torch.mul(u, D, out=torch.empty_like(u))
    state = u.new_zeros(len(u), len(A), A.shape[2], A.shape[1])
    project(u, x_proj, dt_proj, dt_bias, A, directions, width, y, state, backend)
    return y


@scan_image.register_fake
def _(u, x_proj, dt_proj, dt_bias, A, D, directions, width, backend):
    return torch.empty_like(u)


@torch.library.custom_op("llie::selective_scan_backward", mutates_args=())
def _backward(
    dy: Tensor,
    dlast: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    bias: Optional[Tensor],  # noqa: UP045
    starts: Tensor,
    softplus: bool,
    directions: Sequence[int],
    width: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    gradients = tuple(torch.empty_like(t) for t in (u, delta, A, B, C))
    if delta.numel() == 0 or A.numel() == 0:
        return tuple(g.zero_() for g in gradients)  # type: ignore[return-value]
    compute = backends.choose(backend, u)
    compute.backward(dy, dlast, u, delta, A, B, C, bias, softplus, list(directions), width, starts, *gradients)
    return gradients  # type: ignore[return-value]


@_backward.register_fake
def _(dy, dlast, u, delta, A, B, C, bias, starts, softplus, directions, width, backend):
    return tuple(torch.empty_like(t) for t in (u, delta, A, B, C))


@shape_wrapper
def _flops(u: Any, delta: Any, A: Any, *_: Any, **__: Any) -> int:
    """One exponential and two fused multiply-adds per state and position: 1 + 2 + 2 flops."""
    return 5 * math.prod(delta) * A[2]


@shape_wrapper
def _flops_of_image(u: Any, x_proj: Any, dt_proj: Any, dt_bias: Any, A: Any, *_: Any, **__: Any) -> int:
    """As `_flops`, and two for each product of the projections."""
    positions = u[0] * u[1]
    return positions * (5 * math.prod(A) + 2 * math.prod(x_proj) + 2 * math.prod(dt_proj))


# Not by `register_flop_formula`: that of torch 2.4 notes it under a name that its counter does not look up.
flop_registry[torch.ops.llie.selective_scan] = _flops
flop_registry[torch.ops.llie.scan_image] = _flops_of_image


class _Scan(torch.autograd.Function):
    """Connects the two operators; `torch.func` does not support `register_autograd`."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        return _forward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        u, delta, A, B, C, bias, ctx.softplus, ctx.directions, ctx.width, _, ctx.backend = inputs
        ctx.save_for_backward(u, delta, A, B, C, bias, output[2])
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, bias, starts = ctx.saved_tensors
        du, ddelta, dA, dB, dC = _backward(
            dy, dlast, u, delta, A, B, C, bias, starts, ctx.softplus, ctx.directions, ctx.width, ctx.backend
        )
        dbias = None if bias is None else ddelta.sum((0, 1))
        return du, ddelta, dA, dB, dC, dbias, None, None, None, None, None
