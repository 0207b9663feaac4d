"""The recurrence for exported graphs: one operator that steps through positions, with plain reordering around it.

ONNX has `Scan` for such an operator; `llie.export.scan` writes it.
"""

# No `from __future__ import annotations` here: custom_op reads the annotations as types.
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.library.custom_op("llie::scan_steps", mutates_args=())
def scan_steps(delta: Tensor, x: Tensor, B: Tensor, C: Tensor, A: Tensor) -> Tensor:
    """`h[l] = exp(delta[l] A) h[l-1] + x[l] B[l]`, `y[l] = h[l] C[l]`.

    Args:
        delta: step sizes, (length, batch, groups, channels).
        x: step sizes times inputs, the same shape.
        B: (length, batch, groups, states).
        C: the same shape.
        A: (groups, channels, states).

    Returns:
        y, of the shape of x.
    """
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    state = x.new_zeros(*x.shape[1:], A.shape[-1])
    for here in range(len(x)):
        state = (delta[here, ..., None] * A).exp() * state + x[here, ..., None] * B[here, :, :, None]
        y[here] = (state @ C[here, ..., None])[..., 0]
    return y


@scan_steps.register_fake
def _(delta, x, B, C, A):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None, softplus: bool,
    directions: Sequence[int], width: int,
) -> Tensor:  # fmt: skip
    """As `llie.ops.selective_scan.core.scan`, without gradients and last state."""
    delta, C, B, inputs = (_stacked(tensor, directions, width) for tensor in (delta, C, B, u))
    delta = delta if bias is None else delta + bias
    delta = F.softplus(delta) if softplus else delta
    y = scan_steps(delta, delta * inputs, B, C, A).transpose(0, 1)
    height = y.shape[1] // width if width else 0
    ways = [_back(way, k, height) for way, k in zip(y.unbind(2), directions, strict=True)]
    if u.shape[2] != len(directions):
        return torch.stack(ways).sum(0)[:, :, None]
    return torch.stack(ways, 2)


def _stacked(t: Tensor, directions: Sequence[int], width: int) -> Tensor:
    """(batch, length, groups or 1, n) -> (length, batch, groups, n), each group in its order."""
    groups = range(len(directions)) if t.shape[2] != 1 else [0] * len(directions)
    ways = [_forth(t[:, :, group], k, width) for group, k in zip(groups, directions, strict=True)]
    return torch.stack(ways, 2).transpose(0, 1)


def _forth(t: Tensor, direction: int, width: int) -> Tensor:
    """The pixels of an image, row by row, (batch, length, n) -> in the order of a direction."""
    t = t.unflatten(1, (-1, width)).transpose(1, 2).flatten(1, 2) if direction % 2 else t
    return t.flip(1) if direction >= 2 else t


def _back(t: Tensor, direction: int, height: int) -> Tensor:
    """The inverse of `_forth`."""
    t = t.flip(1) if direction >= 2 else t
    return t.unflatten(1, (-1, height)).transpose(1, 2).flatten(1, 2) if direction % 2 else t
