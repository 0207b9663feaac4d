"""The recurrence as a loop of one small step, in operators that exported graphs can hold (`Scan` in ONNX)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None, softplus: bool,
    directions: Sequence[int], width: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `llie.ops.selective_scan.core.scan`, without gradients."""
    from torch._higher_order_ops.scan import scan as loop

    shared = u.shape[2] == 1
    given = []
    for tensor in (u, delta, B, C):
        ways = [tensor[:, :, 0 if tensor.shape[2] == 1 else k] for k in range(len(directions))]
        given.append(torch.stack([_forth(way, k, width) for way, k in zip(ways, directions, strict=True)], 2))
    u, delta, B, C = (tensor.transpose(0, 1) for tensor in given)  # (length, batch, groups, ...)
    delta = delta if bias is None else delta + bias
    delta = F.softplus(delta) if softplus else delta

    def step(state: Tensor, now: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        d, du, b, c = now
        state = torch.exp(d[..., None] * A) * state + du[..., None] * b[:, :, None]
        return state, (state * c[:, :, None]).sum(-1)

    start = torch.zeros_like(delta[0])[..., None] * A
    last, y = loop(step, start, (delta, delta * u, B, C))
    height = y.shape[0] // width if width else 0
    ways = [_back(way, k, height) for way, k in zip(y.transpose(0, 1).unbind(2), directions, strict=True)]
    return (torch.stack(ways).sum(0)[:, :, None] if shared else torch.stack(ways, 2)), last


def _forth(t: Tensor, direction: int, width: int) -> Tensor:
    """(batch, length, n) of an image's pixels, row by row -> in the order of a direction."""
    t = t.unflatten(1, (-1, width)).transpose(1, 2).flatten(1, 2) if direction % 2 else t
    return t.flip(1) if direction >= 2 else t


def _back(t: Tensor, direction: int, height: int) -> Tensor:
    """The inverse of `_forth`."""
    t = t.flip(1) if direction >= 2 else t
    return t.unflatten(1, (-1, height)).transpose(1, 2).flatten(1, 2) if direction % 2 else t
