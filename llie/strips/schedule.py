"""Which rows each operation of a pass computes for each strip of the image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from llie.ops.winograd_matrices import TILE
from llie.strips.plan import Plan
from llie.strips.rules import Range, same
from llie.strips.steps import Pass, Step

OVERLAP = 1.1  # most rows to compute of an operation for each row of progress, before rows are held instead
FEW = 27  # values of the image that a result of a cheap convolution depends on: 3 channels, 3x3
CHEAP = 1.3  # the same where to compute a value takes no longer than to copy it


class Schedule:
    """A pass with strips of a given height.

    Some operations advance: as far as the rows that arrived allow, each row once, and rows that later strips need are
    held. All others are computed for the rows that these need, in part again for the next strip. What is stored and
    what the pass is for advances; and so do operations that would otherwise be repeated too much.

    Args:
        plan: of the network.
        this: pass.
        height: rows of a strip, of the highest map that the pass reads.

    Attributes:
        strips: that the image is cut into. There are further ones, without rows of the image, until all is computed:
            operations lag behind the image by the rows below theirs that they depend on.
        held: operations whose rows are held, for later strips or later passes.
        read: operations whose results others of the pass read in later strips.
    """

    def __init__(self, plan: Plan, this: Pass, height: int):
        self.steps, self.targets, self.height = this.steps, this.targets, height
        self.sources = {step for step in this.steps if plan.read_from_store(step, this.number)}
        self.rows = max(_rows(step) for step in self.sources)
        self.strips = -(-self.rows // height)
        self.advancing = {s for s in this.steps if s not in self.sources and (s in this.targets or s.stored)}
        for step in this.steps:
            if step.block > 1 and step not in self.sources:  # it waits until its block is there
                self.advancing |= {step, step.inputs[0]} - self.sources
        self.advancing |= {step for step in this.steps if step.in_turn and step not in self.sources}
        self._arrived: dict[int, dict[Step, int]] = {}
        middle = 0
        while any(2 * self.reached(middle + 1)[step] < _size(step) for step in this.targets):
            middle += 1
        # Of a low image, the first operations are at its bottom before the last ones are in the middle.
        early = min(middle, self.strips // 2)
        for number in sorted({early, (early + middle) // 2, middle}):
            self._hold_what_repeats(number)
        self._middle = middle
        self.read = {
            source
            for step in this.steps
            for source in step.inputs
            if step not in self.sources and not self._reads_at_once(step, source)
        }
        self.held = {s for s in self.advancing if s.kind == "local" and (s in self.read or s.last_pass > this.number)}

    def _reads_at_once(self, step: Step, source: Step) -> bool:
        """Whether a step reads all rows of an input in the strip that computes them: none have to wait."""
        advances = step in self.advancing and source in self.advancing and len(step.inputs) == 1
        alike = step.rule(source) is same and step.along.unit == source.along.unit and step.grain == source.grain == 1
        return advances and alike

    def _hold_what_repeats(self, number: int) -> None:
        before, now = self.done(number), self.done(number + 1)
        needed: dict[Step, Range] = {}
        for step in reversed(self.steps):
            if step in self.sources or (step not in self.advancing and step not in needed):
                continue
            progress = now[step] - before[step]
            if step not in self.advancing and self.strips > 1:
                first, stop = needed[step]
                unit = step.rows.unit if step.rows is not None else 1
                overlap = CHEAP if _is_cheap(step) else OVERLAP
                if stop - first > max(overlap * progress, progress + unit):
                    self.advancing.add(step)
            part = (before[step], now[step]) if step in self.advancing else needed[step]
            if part[0] < part[1]:
                for source in step.inputs:
                    _widen(needed, source, step.ask(source, *part))

    def _positions(self, number: int) -> dict[Step, int]:
        """Of each step, how many positions can be computed after so many strips, as if the image went on below."""
        if number not in self._arrived:
            found: dict[Step, int] = {}
            for step in self.steps:
                if step in self.sources:
                    assert step.rows is not None
                    found[step] = -(-_rows(step) * number * self.height // self.rows) * step.rows.unit
                elif step.local is not None and step.local.grain > 1:
                    # Given away evenly: a row counts when its block is there, wherever in the block it is. Otherwise
                    # later steps would have to take a whole block at a time.
                    found[step] = found[step.inputs[0]] - (step.local.grain - 1)
                else:
                    found[step] = min(_reach(step, source, found[source]) for source in step.inputs)
            self._arrived = {k: v for k, v in self._arrived.items() if k >= number - 1} | {number: found}
        return self._arrived[number]

    def reached(self, number: int) -> dict[Step, int]:
        """Of each step, how many positions are computed after so many strips, if it advances."""
        return {step: min(position, _size(step)) for step, position in self._positions(number).items()}

    def done(self, number: int) -> dict[Step, int]:
        """As `reached`, but of steps that compute blocks of rows, whole blocks."""
        done = self.reached(number)
        for step in self.steps:
            if step in self.advancing and step.grain > 1:
                there = done[step.inputs[0]]
                done[step] = there if there == _size(step) else there // step.grain * step.grain
        return done

    def strips_of_all(self) -> Iterator[tuple[int, dict[Step, Range]]]:
        """The strips by number, and the positions that each step computes."""
        number = 0
        while any(reached < _size(step) for step, reached in self.reached(number).items() if step in self.advancing):
            yield number, self.ranges(number)
            number += 1

    def ranges(self, number: int) -> dict[Step, Range]:
        """The positions that each step computes for one strip."""
        before, now = self.done(number), self.done(number + 1)
        computed = {step: (before[step], now[step]) for step in self.advancing if now[step] > before[step]}
        for step in reversed(self.steps):
            if step in computed:
                for source in step.inputs:
                    if source not in self.sources and source not in self.advancing:
                        asked = step.ask(source, *computed[step])
                        if asked[0] < asked[1] or not step.in_turn:
                            _widen(computed, source, asked)
        return computed

    def still_needed(self, number: int) -> dict[Step, int]:
        """After a strip, the first position of every operation that later strips read; nothing of those left out."""
        now = self.done(number + 1)
        first: dict[Step, int] = {}
        for step in reversed(self.steps):
            start = now[step] if step in self.advancing else first.get(step, _size(step))
            if start < _size(step) and step not in self.sources:
                for source in step.inputs:
                    low = step.ask(source, start, start + (step.rows.unit if step.rows is not None else 1))[0]
                    first[source] = min(first.get(source, low), low)
        return first

    def peak(self) -> int:
        """Most bytes of values at a time in a strip in the middle."""
        computed = self.ranges(self._middle)
        last: dict[Step, int] = {}
        for place, step in reversed(list(enumerate(self.steps))):
            end = max(last.get(step, place), place)
            for source in step.inputs:
                if step in computed:
                    last[source] = max(last.get(source, 0), end if not step.bytes_per_position else place)
        ends: dict[int, int] = {}
        live = peak = 0
        for place, step in enumerate(self.steps):
            if step in computed:
                size = (computed[step][1] - computed[step][0]) * step.bytes_per_position
                live += size
                ends[last.get(step, place)] = ends.get(last.get(step, place), 0) + size
            peak = max(peak, live)
            live -= ends.pop(place, 0)
        return peak


def schedule_within(plan: Plan, this: Pass, working: int) -> Schedule:
    """The pass in as few strips as keep the values of one within about so many bytes."""
    # What enters blocks of rows from below is read a block at a time, however many strips there are.
    sources = [
        _rows(step)
        for step in this.steps
        if plan.read_from_store(step, this.number) and (step.part is None or step.part.kind != "upward")
    ]
    rows, least = max(sources), -(-max(sources) // min(sources))
    schedule = Schedule(plan, this, rows)
    while schedule.height > least and schedule.peak() > working:
        schedule = Schedule(plan, this, max(least, schedule.height * 3 // 4))
    # A multiple of the tiles' rows, and these themselves where they do not take more than twice the bytes.
    tiles = _rows_of_tiles(this, rows)
    while tiles > 2 * schedule.height:
        tiles //= 2
    above = -(-schedule.height // tiles) * tiles
    height = max(least, above if above == tiles or above <= schedule.height * 4 // 3 else above - tiles)
    return schedule if height == schedule.height or schedule.strips == 1 else Schedule(plan, this, height)


def _rows_of_tiles(this: Pass, rows: int) -> int:
    """Rows of a strip by which all convolutions advance by whole tiles, if they are Winograd's."""
    found = [step.inputs[0].along.size for step in this.steps if step.convolves or step.sees_neighbours]
    return TILE * (rows // min(found)) if found and rows >= min(found) else 1


def _is_cheap(step: Step) -> bool:
    """Whether it is a convolution of few channels."""
    if not step.convolves:
        return False
    weight: Any = step.node.args[1]
    return math.prod(weight.meta["val"].shape[1:]) <= FEW


def _rows(step: Step) -> int:
    """Rows of a step's result."""
    assert step.rows is not None
    return step.rows.size // step.rows.unit


def _size(step: Step) -> int:
    """Positions along the rows; of a sum, those of what it adds up."""
    return step.along.size


def _reach(step: Step, source: Step, available: int) -> int:
    """How many positions of a step can be computed from so many of an input, which may lie beyond its end."""
    if step.local is None:
        return available
    assert source.rows is not None and step.rows is not None
    size, unit, need = step.rows.size, step.rows.unit, step.rule(source)
    if need is same:  # as in general, but quickly
        return available if available >= size else available // unit * unit
    beyond = available - step.ends[source]
    if beyond >= 0:
        return size + beyond * size // source.rows.size
    low, high = 0, size // unit
    while low < high:
        middle = (low + high + 1) // 2
        if need(0, middle * unit)[1] <= available:
            low = middle
        else:
            high = middle - 1
    return low * unit


def _widen(hull: dict[Step, Range], step: Step, part: Range) -> None:
    if step in hull:
        part = min(part[0], hull[step][0]), max(part[1], hull[step][1])
    hull[step] = part
