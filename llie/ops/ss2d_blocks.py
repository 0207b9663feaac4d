"""The four-direction scan of `llie.ops.ss2d` in blocks of rows, from the top to the bottom, exact to rounding.

The scan is a linear recurrence: over any stretch of it, the state at the end is `decay * state at the start + own`. So
each block is described by a decay and a state of its own, whatever lies around it; from these follow the states with
which the lines of the block begin, and the block can be computed:

- rows forwards: the state at the end of the block above;
- columns forwards: a column begins where the column to its left ends, at the bottom of the image. So the columns are
  followed to the bottom once, before any result is computed; from then on they are carried from block to block;
- rows and columns backwards come from below: descriptions of all blocks are kept, and composed from the bottom up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from llie.ops.selective_scan.core import resume

ROWS = 64  # in a block: more rows take more memory for the block, fewer take more for what is kept of all blocks
CHUNK = 2**20  # values of a piece of a block that is computed at a time: its step sizes stay in the cache

DOWN, UP, ROWS_BACK = 1, 3, 2  # directions, as in `llie.ops.ss2d`


class Weights(NamedTuple):
    """See `llie.ops.ss2d.ss2d`."""

    x_proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor
    A_log: Tensor
    D: Tensor
    backend: str


class Lines(NamedTuple):
    """A stretch of several lines: the state at its end if it begins with zero, and the sum of its step sizes.

    Attributes:
        own: (lines, channels, states).
        steps: (lines, channels); the decay is exp(-exp(A_log) steps).
    """

    own: Tensor
    steps: Tensor


class BlockScan:
    """`ss2d` of one image, (1, channels, H, W), in blocks of rows.

    Args:
        weights: returns those of the scan; called when values are computed, not when a graph is traced.
        states: of each channel.
        channels: of the image.
        width: W.
        rows: of a block.

    Attributes:
        size: numbers that describe a block.
    """

    def __init__(self, weights: Callable[[], Weights], states: int, channels: int, width: int, rows: int):
        self._weights, self.width, self.rows = weights, width, rows
        self.shapes = [(width, channels, states), (width, channels), (1, channels, states), (1, channels)]
        self.size = sum(torch.Size(shape).numel() for shape in self.shapes)

    @functools.cached_property
    def weights(self) -> Weights:
        """See the argument."""
        return self._weights()

    @functools.cached_property
    def rates(self) -> Tensor:
        """Decay rates, (4, channels, states)."""
        return -self.weights.A_log.float().exp()

    def describe(self, x: Tensor, ends: tuple[bool, bool] = (True, True)) -> Tensor:
        """What the backward directions need of each block: (1, C, blocks * rows, W) -> (1, 1, blocks, size)."""
        found = []
        for block in x.split(self.rows, 2):
            columns = self._columns(UP, block, None)
            line = self._rows(ROWS_BACK, block, None)
            found.append(torch.cat([part.flatten() for part in (*columns[:2], *line[:2])]))
        return torch.stack(found)[None, None]

    def follow(self, before: Lines | None, x: Tensor) -> Lines:
        """Columns forwards: the stretches from the top to the end of x, given those to its start."""
        own, steps, _ = self._columns(DOWN, x, None if before is None else before.own)
        return Lines(own, steps if before is None else before.steps + steps)

    def compose(self, above: Lines | None, described: Tensor) -> Lines:
        """Columns backwards: the stretches from the end of described blocks to the top, given those above them."""
        for block in described[0, 0]:
            columns = self._unpacked(block)[0]
            if above is None:
                above = Lines(*(t.clone() for t in columns))  # what is described may be overwritten
            else:
                above = Lines(above.own + self._decay(UP, above.steps) * columns.own, above.steps + columns.steps)
        assert above is not None
        return above

    def first_states(self, columns: Lines, backwards: bool) -> Tensor:
        """The state with which each whole column begins, (W, channels, states): that at the end of the one before."""
        decays = self._decay(UP if backwards else DOWN, columns.steps)
        starts = torch.zeros_like(columns.own)
        order = range(self.width - 1, 0, -1) if backwards else range(self.width - 1)
        for j in order:
            after = j - 1 if backwards else j + 1
            torch.addcmul(columns.own[j], decays[j], starts[j], out=starts[after])
        return starts

    def from_below(self, described: Tensor, entering: Tensor) -> tuple[Tensor, Tensor]:
        """Descriptions of blocks, from which the states follow that enter them from below.

        Args:
            described: (1, 1, blocks, size).
            entering: the states that enter the last of them: those of columns, or of columns and of the row, as
                (W or W + 1, channels, states).

        Returns:
            The states that enter each of them, at the start of (1, 1, blocks, size), and those that leave at the top.
        """
        columns_in, row_in = entering[: self.width], entering[self.width :]
        row_in = row_in if len(row_in) else torch.zeros_like(entering[:1])
        result = torch.zeros_like(described)
        for k in range(described.shape[2] - 1, -1, -1):
            columns, row = self._unpacked(described[0, 0, k])
            into_columns, into_row = self._unpacked(result[0, 0, k])
            into_columns.own.copy_(columns_in)
            into_row.own.copy_(row_in)
            columns_in = columns.own + self._decay(UP, columns.steps) * columns_in
            row_in = row.own + self._decay(ROWS_BACK, row.steps) * row_in
        return result, torch.cat([columns_in, row_in])

    def begin(self, columns: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """A function of successive blocks from the top, and of what enters each from below, to their results.

        Args:
            columns: the states with which the columns begin at the top, (W, channels, states).
        """
        row = torch.zeros_like(columns[:1])
        D = self.weights.D.float().sum(0)

        def run(x: Tensor, entering: Tensor) -> Tensor:
            nonlocal columns, row
            results = []
            for block, described in zip(x.split(self.rows, 2), entering[0, 0], strict=True):
                from_below = self._unpacked(described)
                y = block * D[:, None, None]
                columns = self._columns(DOWN, block, columns, y)[0]
                row = self._rows(0, block, row, y)[0]
                self._columns(UP, block, from_below[0].own, y)
                self._rows(ROWS_BACK, block, from_below[1].own, y)
                results.append(y)
            return results[0] if len(results) == 1 else torch.cat(results, 2)

        return run

    def _unpacked(self, described: Tensor) -> tuple[Lines, Lines]:
        """Columns and row of one described block, as views."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        parts = [part.view(shape) for part, shape in zip(described.split(sizes), self.shapes, strict=True)]
        return Lines(parts[0], parts[1]), Lines(parts[2], parts[3])

    def _decay(self, direction: int, steps: Tensor) -> Tensor:
        return (self.rates[direction] * steps[..., None]).exp()

    def _columns(self, direction: int, x: Tensor, state: Tensor | None, y: Tensor | None = None) -> _Scanned:
        """Scan the columns of (1, C, rows, W) one by one, each from its state; the results are added to y."""
        wide = max(1, CHUNK // (x.shape[1] * x.shape[2]))
        ends, steps = [], []
        for first in range(0, self.width, wide):
            part = slice(first, first + wide)
            lines = x[:, :, :, part].permute(3, 2, 0, 1)  # (columns, rows, 1, C)
            begun = None if state is None else state[part]
            end, step, result = self._scan(direction, lines, begun, y is None)
            ends.append(end)
            steps.append(step)
            if y is not None:
                y[:, :, :, part] += result.permute(2, 3, 1, 0)
        return _Scanned(torch.cat(ends), torch.cat(steps), y)

    def _rows(self, direction: int, x: Tensor, state: Tensor | None, y: Tensor | None = None) -> _Scanned:
        """Scan the rows of (1, C, rows, W) as a single line, from its state; the results are added to y."""
        high = max(1, CHUNK // (x.shape[1] * self.width))
        state = torch.zeros_like(self.rates[:1]) if state is None else state
        total = torch.zeros_like(state[..., 0])
        parts: Iterator[int] = iter(range(0, x.shape[2], high))
        for first in reversed(list(parts)) if direction == ROWS_BACK else parts:
            lines = x[:, :, first : first + high].permute(0, 2, 3, 1)
            size = lines.shape[1:3]
            state, step, result = self._scan(direction, lines.flatten(1, 2).unsqueeze(2), state, y is None)
            total += step
            if y is not None:
                y[:, :, first : first + high] += result.squeeze(2).unflatten(1, size).permute(0, 3, 1, 2)
        return _Scanned(state, total, y)

    def _scan(
        self, direction: int, lines: Tensor, state: Tensor | None, describe: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scan lines (lines, length, 1, C): states at their ends, sums of step sizes (0 unless asked for), results."""
        x_proj, dt_proj, dt_bias, _, _, backend = self.weights
        rank, states = dt_proj.shape[2], self.rates.shape[2]
        u = lines.float()
        low_rank, B, C = F.linear(u, x_proj[direction].float()).split([rank, states, states], 3)
        delta = F.linear(low_rank, dt_proj[direction].float())
        bias, rates = dt_bias[direction : direction + 1].float(), self.rates[direction : direction + 1]
        state = u.new_zeros(len(u), *rates.shape[1:]) if state is None else state
        order = [2 if direction in (UP, ROWS_BACK) else 0]
        y, last = resume(state[:, None], u, delta, rates, B, C, bias, order, backend=backend)
        steps = F.softplus(delta + bias).sum((1, 2)) if describe else u.new_zeros(len(u), u.shape[3])
        return last[:, 0], steps, y


class _Scanned(NamedTuple):
    """States at the ends of lines, sums of their step sizes, and the results."""

    own: Tensor
    steps: Tensor
    y: Tensor | None
