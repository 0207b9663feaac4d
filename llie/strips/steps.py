"""The steps of a network that is evaluated in strips: its operations, and what is known of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from llie.ops.parts import Part
from llie.strips.neighbours import convolution_and_relu
from llie.strips.rules import Local, Range, Rows, is_pointwise, same
from llie.strips.sums import Sum

BLOCK = 16  # rows of an input that are needed at once and are many more than a halo


@dataclass(eq=False, repr=False)
class Step:
    """One operation.

    Attributes:
        node: of the graph.
        kind: "image", "small" (no rows: parameters and what follows from sums), "local", "sum" or "whole".
        inputs: the steps with rows that it reads.
        rows: of its result; None where that has none.
        local: how to compute it in strips, for "local".
        sum: how to add it up, for "sum".
        part: its mark, see `llie.ops.parts`.
        depth: the pass in which it can be computed first.
        stored: its rows are stored once computed.
        last_pass: the last pass that reads it from the store, and a half if it is read after that pass; -1 for none but
            its own.
    """

    node: fx.Node
    kind: str
    inputs: list[Step] = field(default_factory=list)
    rows: Rows | None = None
    local: Local | None = None
    sum: Sum | None = None
    part: Part | None = None
    depth: int = 0
    stored: bool = False
    last_pass: float = -1

    @property
    def along(self) -> Rows:
        """Rows of the result, or, of a sum, of what it adds up."""
        rows = self.rows or self.inputs[0].rows
        assert rows is not None
        return rows

    def rule(self, source: Step) -> Callable[[int, int], Range]:
        """Some positions of the result -> the positions of an input that they need, which may lie beyond its ends."""
        return self.local.others.get(source.node, self.local.need) if self.local is not None else same

    def need(self, source: Step, first: int, stop: int) -> Range:
        """The positions of an input that some positions of the result need."""
        low, high = self.rule(source)(first, stop)
        size = source.along.size
        return max(0, min(low, size)), min(max(high, 0), size)

    def ask(self, source: Step, first: int, stop: int) -> Range:
        """Positions of an input to compute for some positions of the result: those that it needs, in whole rows."""
        low, high = self.need(source, first, stop)
        unit, size = source.along.unit, source.along.size
        return low // unit * unit, min(-(-high // unit) * unit, size)

    @functools.cached_property
    def ends(self) -> dict[Step, int]:
        """Of each input, where the positions end that the whole result needs; not before those of the input."""
        return {source: max(self.rule(source)(0, self.along.size)[1], source.along.size) for source in self.inputs}

    @functools.cached_property
    def block(self) -> int:
        """How many rows of its first input a part of the result needs at once, or more than 1."""
        coarse = self.part is not None and self.part.kind in ("local", "onward") and self.part.ratio[0] >= BLOCK
        return self.part.ratio[0] if self.part is not None and coarse else 1

    @functools.cached_property
    def grain(self) -> int:
        """More than 1 if rows are computed, or added up, in order and in blocks of so many."""
        if self.local is not None:
            return self.local.grain
        return self.part.ratio[0] if self.part is not None and self.part.kind == "fold" else 1

    @property
    def in_turn(self) -> bool:
        """Whether it remembers rows that it got, so that each row must be computed once, and in order."""
        return self.part is not None and self.part.kind == "rolling"

    @property
    def sees_neighbours(self) -> bool:
        """Whether it is a marked function that depends on the rows around."""
        return self.part is not None and self.part.kind in ("local", "rolling") and self.part.halo > 0

    @property
    def is_mark(self) -> bool:
        """Whether it is its input, stored."""
        return self.part is not None and self.part.kind in ("keep", "apart")

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution, with ReLU or without."""
        target: Any = self.node.target
        return getattr(target, "overloadpacket", target) in (torch.ops.aten.convolution, convolution_and_relu)

    @property
    def ends_pass(self) -> bool:
        """Whether nothing can read its result before all of its input was there."""
        return self.kind in ("sum", "whole") or (self.part is not None and self.part.kind == "apart")

    @functools.cached_property
    def pointwise(self) -> bool:
        """Whether a value depends on those at the same place of every input alone."""
        return is_pointwise(self.node.target)

    @functools.cached_property
    def origin(self) -> Step:
        """The step whose result's memory this one's result has."""
        return self.inputs[0].origin if self.local is not None and self.local.view else self

    @functools.cached_property
    def bytes_per_position(self) -> int:
        """Memory of the result along its rows; none for views, and for blocks of many rows, which strips do not cut."""
        if self.rows is None or (self.local is not None and self.local.view) or self.block > 1:
            return 0
        value = self.node.meta["val"]
        value = value[0] if isinstance(value, (tuple, list)) else value
        return math.prod(value.shape) // self.rows.size * value.element_size()


@dataclass
class Pass:
    """One way over the image.

    Attributes:
        number: the pass's.
        steps: all that have rows, in order, those read from the store included.
        targets: those that this pass is for.
        whole: what is computed from whole maps after it.
    """

    number: int
    steps: list[Step]
    targets: list[Step]
    whole: list[Step]
