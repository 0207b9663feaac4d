"""Plain PyTorch, any device, float32 or float64: blocks of positions, and one small step per position in a block.

Decays are only multiplied, never divided, so nothing can overflow (every product is exp of a negative number). The
workspace of a block stays in the cache, and exp2 is several times faster than exp. The backward pass goes through the
blocks from the end and recomputes each from its saved first state.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llie.ops.selective_scan.core import BLOCK, positions

LOG2E = 1 / math.log(2)


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None, softplus: bool,
    directions: list[int], width: int, y: Tensor, last: Tensor, starts: Tensor, initial: Tensor | None = None,
) -> None:  # fmt: skip
    """Fill y, the last state and, where `starts` has room, the state before every block; begin with `initial` or 0."""
    blocks = _Blocks(u, delta, A, B, C, bias, softplus, directions, width)
    if y.shape[2] != blocks.groups:
        y.zero_()
    state = u.new_zeros(blocks.state_shape) if initial is None else initial.transpose(2, 3).contiguous()
    for index in range(blocks.count):
        if len(starts):
            starts[index] = state
        _, _, _, _, c, _, h = blocks.run(index, state)
        blocks.put(y, index, torch.matmul(c.unsqueeze(3), h).squeeze(3))
        state.copy_(h[-1])
    last.copy_(state.transpose(2, 3))


def backward(
    dy: Tensor, dlast: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None,
    softplus: bool, directions: list[int], width: int, starts: Tensor,
    du: Tensor, ddelta: Tensor, dA: Tensor, dB: Tensor, dC: Tensor,
) -> None:  # fmt: skip
    """Fill the gradients of all inputs, given those of y and of the last state."""
    blocks = _Blocks(u, delta, A, B, C, bias, softplus, directions, width)
    if du.shape[2] != blocks.groups:
        du.zero_()
    rates = A.transpose(1, 2)  # (groups, states, channels)
    dA_sum = torch.zeros_like(rates)
    carry = dlast.transpose(2, 3)
    for index in reversed(range(blocks.count)):
        start = starts[index]
        u_t, d, ud, b, c, a, h = blocks.run(index, start)
        dy_t = blocks.take(dy, index)
        g = c.unsqueeze(4) * dy_t.unsqueeze(3)  # becomes the gradient of the state
        steps, decays = g.unbind(), blocks.decays
        steps[-1].add_(carry)
        for t in range(len(steps) - 2, -1, -1):
            steps[t].addcmul_(decays[t + 1], steps[t + 1])
        carry = decays[0] * steps[0]

        blocks.put(dC, index, torch.matmul(h, dy_t.unsqueeze(4)).squeeze(4))
        blocks.put(dB, index, torch.matmul(g, ud.unsqueeze(4)).squeeze(4))
        from_input = torch.matmul(b.unsqueeze(3), g).squeeze(3)
        blocks.put(du, index, d * from_input)
        q = a.mul_(g)  # decay * gradient * previous state: a product, never a difference
        q[0].mul_(start)
        q[1:].mul_(h[:-1])
        from_step = torch.mul(q, rates, out=g).sum(3).addcmul_(u_t, from_input)
        if softplus:  # its slope is 1 - exp(-softplus(x)); expm1 keeps it exact for small steps
            from_step.mul_(-torch.expm1(-d))
        blocks.put(ddelta, index, from_step)
        dA_sum += q.mul_(d.unsqueeze(3)).sum((0, 1))
    dA.copy_(dA_sum.transpose(1, 2))


class _Blocks:
    """Reads, runs and writes one block of positions; within a block, time is the first axis and channels the last."""

    def __init__(
        self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None, softplus: bool,
        directions: list[int], width: int,
    ):  # fmt: skip
        self.u, self.delta, self.B, self.C = u, delta, B, C
        self.bias, self.softplus = bias, softplus
        batch, self.length, self.groups, channels = delta.shape
        self.state_shape = (batch, self.groups, A.shape[2], channels)
        self.size = min(BLOCK, self.length)
        self.count = -(-self.length // BLOCK)
        self.A2 = (A * LOG2E).transpose(1, 2).contiguous()
        self.a = u.new_empty(self.size, *self.state_shape)
        self.h = torch.empty_like(self.a)
        self.decays, self.states = self.a.unbind(), self.h.unbind()  # made once, which saves time in the loop
        # The order along rows needs no index: a block is a slice.
        self.order = None
        if any(directions):
            paths = [positions(k, self.length, width, u.device) for k in directions]
            self.order = torch.stack(paths, 1)  # (length, groups)
            self.group = torch.arange(self.groups, device=u.device)

    def take(self, tensor: Tensor, index: int) -> Tensor:
        """A block of (batch, length, groups, n), as (time, batch, groups, n) in the order of each direction."""
        return tensor[self._where(tensor, index)].transpose(0, 1).clone(memory_format=torch.contiguous_format)

    def put(self, tensor: Tensor, index: int, block: Tensor) -> None:
        """Write a block to where `take` reads it; groups that share a position add up."""
        block = block.transpose(0, 1)
        where = self._where(tensor, index)
        if tensor.shape[2] == self.groups:
            tensor[where] = block
        elif self.order is None:
            tensor[where] += block.sum(2, keepdim=True)
        else:
            for group, order in enumerate(where[1].unbind(1)):  # within one direction, no position occurs twice
                tensor[:, order, 0] += block[:, :, group]

    def _where(self, tensor: Tensor, index: int) -> tuple[Any, ...]:
        span = slice(index * self.size, (index + 1) * self.size)
        if self.order is None:
            return (slice(None), span)
        return (slice(None), self.order[span], self.group % tensor.shape[2])

    def run(self, index: int, state: Tensor) -> tuple[Tensor, ...]:
        """The recurrence over one block from `state`: u, delta, delta u, B, C, decays and states, time first."""
        u, d, b, c = (self.take(t, index) for t in (self.u, self.delta, self.B, self.C))
        a, h = self.a[: len(d)], self.h[: len(d)]
        if self.bias is not None:
            d += self.bias
        if self.softplus:
            d = F.softplus(d)
        ud = d * u
        torch.mul(d.unsqueeze(3), self.A2, out=a).exp2_()
        torch.mul(ud.unsqueeze(3), b.unsqueeze(4), out=h)
        for decay, step in zip(self.decays[: len(d)], self.states, strict=False):
            state = step.addcmul_(decay, state)
        return u, d, ud, b, c, a, h


def prepare() -> None:
    """Nothing to do: PyTorch is there."""


def supports(u: Tensor) -> bool:
    """Every device, float32 and float64."""
    return u.dtype in (torch.float32, torch.float64)
