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

from llie.ops.parts import WHOLE, Ends, new_map
from llie.ops.selective_scan.core import carry, project, project_ends

ROWS = 64  # in a block: more rows take more memory for the block, fewer take more for what is kept of all blocks
CHUNK = 2**22  # values of a piece of a block that is computed at a time
FORGOTTEN = 1e-20  # a decay after which nothing of a state is left: none is so much larger than others

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
        own: (lines, states, channels).
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
        self.shapes = [(width, states, channels), (width, channels), (1, states, channels), (1, channels)]
        self.size = sum(torch.Size(shape).numel() for shape in self.shapes)

    @functools.cached_property
    def weights(self) -> Weights:
        """See the argument."""
        return self._weights()

    @functools.cached_property
    def rates(self) -> Tensor:
        """Decay rates, (4, states, channels)."""
        return -self.weights.A_log.float().exp().transpose(1, 2).contiguous()

    def describe(self, x: Tensor, ends: Ends = WHOLE) -> Tensor:
        """What the backward directions need of each block: (1, C, blocks * rows, W) -> (1, 1, blocks, size)."""
        blocks = _channels_last(x).split(self.rows, 2)
        result = x.new_zeros(1, 1, len(blocks), self.size, dtype=torch.float32)
        for block, described in zip(blocks, result[0, 0], strict=True):
            columns, row = self._unpacked(described)
            self._end_of_columns(UP, block, columns)
            self._end_of_rows_back(block, row)
        return result

    def follow(self, before: Lines | None, x: Tensor) -> Lines:
        """Columns forwards: the stretches from the top to the end of x; those to its start, if given, are extended."""
        if before is None:
            before = Lines(*(x.new_zeros(shape, dtype=torch.float32) for shape in self.shapes[:2]))
        self._end_of_columns(DOWN, _channels_last(x), before)
        return before

    def compose(self, above: Lines | None, described: Tensor) -> Lines:
        """Columns backwards: the stretches from the end of described blocks to the top, given those above them."""
        if above is None:
            above = Lines(*(described.new_zeros(shape) for shape in self.shapes[:2]))
        for block in described[0, 0]:
            columns, _ = self._unpacked(block)
            carry(self.rates[UP], above.steps, columns.own, above.own, backend=self.weights.backend)
            above.steps.add_(columns.steps)
        return above

    def first_states(self, columns: Lines, backwards: bool) -> Tensor:
        """The state with which each whole column begins, (W, states, channels): that at the end of the one before."""
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
            described: (1, 1, blocks, size); it becomes the first result.
            entering: the states that enter the last of them: those of columns, or of columns and of the row, as
                (W or W + 1, states, channels). The latter become the second result.

        Returns:
            The states that enter each of them, at the start of (1, 1, blocks, size), and those that leave at the top.
        """
        states = entering
        if len(entering) == self.width:
            states = torch.cat([entering, torch.zeros_like(entering[:1])])
        for block in reversed(described[0, 0].unbind()):
            columns, row = self._unpacked(block)
            for direction, lines, state in (
                (UP, columns, states[: self.width]),
                (ROWS_BACK, row, states[self.width :]),
            ):
                carry(self.rates[direction], lines.steps, state, lines.own, True, self.weights.backend)
        return described, states

    def begin(self, columns: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """A function of successive blocks from the top, and of what enters each from below, to their results.

        Args:
            columns: the states with which the columns begin at the top, (W, states, channels).
        """
        columns, row = columns.clone(), torch.zeros_like(columns[:1])
        D = self.weights.D.float().sum(0)

        def run(x: Tensor, entering: Tensor) -> Tensor:
            x = _channels_last(x)
            y = torch.mul(x, D[:, None, None], out=new_map(x.shape, x.dtype, x.device))
            for block, result, below in zip(x.split(self.rows, 2), y.split(self.rows, 2), entering[0, 0], strict=True):
                columns_up, row_back = self._unpacked(below)
                self._add_columns(block, columns, columns_up.own, result)
                self._add_rows(0, block, row, result)
                self._add_rows(ROWS_BACK, block, row_back.own, result)
            return y

        return run

    def _unpacked(self, described: Tensor) -> tuple[Lines, Lines]:
        """Columns and row of one described block, as views."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        parts = [part.view(shape) for part, shape in zip(described.split(sizes), self.shapes, strict=True)]
        return Lines(parts[0], parts[1]), Lines(parts[2], parts[3])

    def _decay(self, direction: int, steps: Tensor) -> Tensor:
        return (self.rates[direction] * steps[:, None]).exp_()

    def _add_columns(self, x: Tensor, down: Tensor, up: Tensor, y: Tensor) -> None:
        """Add the results of the columns of (1, C, rows, W), from their first states, which become the last ones."""
        for part in _parts(self.width, x.shape[1] * x.shape[2]):
            for direction, states in ((DOWN, down), (UP, up)):
                self._scan(direction, _columns(x, part), states[part], _columns(y, part))

    def _add_rows(self, direction: int, x: Tensor, state: Tensor, y: Tensor) -> None:
        """Add the results of the rows of (1, C, rows, W) as a single line, from a state, which becomes the last one."""
        parts = list(_parts(x.shape[2], x.shape[1] * self.width))
        for part in reversed(parts) if direction == ROWS_BACK else parts:
            self._scan(direction, _row(x, part), state, _row(y, part))

    def _end_of_columns(self, direction: int, x: Tensor, columns: Lines) -> None:
        """Extend stretches by the columns of (1, C, rows, W)."""
        for part in _parts(self.width, x.shape[1] * x.shape[2]):
            steps = torch.zeros_like(columns.steps[part])
            self._end(direction, _columns(x, part), columns.own[part], steps)
            columns.steps[part] += steps

    def _end_of_rows_back(self, x: Tensor, row: Lines) -> None:
        """Describe the rows of (1, C, rows, W) as a single line from the last pixel to the first.

        From its end to its start, as far as anything reaches the end: decays from the rest are zero in effect.
        """
        for part in _parts(x.shape[2], x.shape[1] * self.width):
            own = torch.zeros_like(row.own)
            self._end(ROWS_BACK, _row(x, part), own, row.steps)
            row.own.add_(own)
            if self._decay(ROWS_BACK, row.steps).amax() < FORGOTTEN:
                break

    def _scan(self, direction: int, lines: Tensor, state: Tensor, y: Tensor) -> None:
        """Add the results of lines (lines, length, 1, C) to y, from their states, which become those at their ends."""
        weights, order = self._operands(direction)
        project(lines, *weights, order, 0, y, state[:, None], self.weights.backend)

    def _end(self, direction: int, lines: Tensor, state: Tensor, steps: Tensor) -> None:
        """As `_scan`, without results; see `llie.ops.selective_scan.core.project_ends`. Steps: (lines, C)."""
        weights, order = self._operands(direction)
        project_ends(lines, *weights, order, state[:, None], steps[:, None], FORGOTTEN, self.weights.backend)

    def _operands(self, direction: int) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], list[int]]:
        """Weights of a scan, and its direction along lines."""
        x_proj, dt_proj, dt_bias = (w[direction, None].float() for w in self.weights[:3])
        order = [2 if direction in (UP, ROWS_BACK) else 0]
        return (x_proj, dt_proj, dt_bias, self.rates[direction, None].transpose(1, 2)), order


def _parts(count: int, values: int) -> Iterator[slice]:
    """Of so many lines or rows with so many values each, as many as make a piece, in turn."""
    size = max(1, CHUNK // values)
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def _channels_last(x: Tensor) -> Tensor:
    return x.float().contiguous(memory_format=torch.channels_last)


def _columns(x: Tensor, part: slice) -> Tensor:
    """Some columns of (1, C, rows, W) as lines, (columns, rows, 1, C)."""
    return x[:, :, :, part].permute(3, 2, 0, 1)


def _row(x: Tensor, part: slice) -> Tensor:
    """Some rows of (1, C, rows, W), channels last, as a single line, (1, rows * W, 1, C)."""
    return x[:, :, part].permute(0, 2, 3, 1).flatten(1, 2).unsqueeze(2)
