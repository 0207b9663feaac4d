"""Evaluate a network on an image of any size in bounded memory, with the result of the whole image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from llie.ops.parts import offered
from llie.strips.memory import return_free_memory
from llie.strips.plan import Plan
from llie.strips.results import Lives, into
from llie.strips.rules import Cut, Range
from llie.strips.schedule import schedule_within
from llie.strips.steps import Pass, Step
from llie.strips.store import Map, Store, Window
from llie.strips.trace import trace
from llie.strips.waiting import in_file

KEPT = 2**29  # bytes in the heap that no tensor uses, kept after a pass at most
WORKING = 2**26  # bytes of a strip and all that is computed from it at once; larger ones are no faster
Read = Callable[[int, int], Tensor]
Write = Callable[[int, int, Tensor], None]


class Strips:
    """A network at one image size, planned.

    Args:
        function: (B, 3, H, W) -> (B, 3, H, W), for instance a network in evaluation mode.
        shape: (B, 3, H, W).
        device: of the function.

    Attributes:
        plan: what is computed when.

    Raises:
        Exception: of any kind, where the function cannot be traced.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: torch.device | str = "cpu"
    ):
        self.plan = Plan(*trace(function, shape, device))

    def __call__(self, read: Read, write: Write, memory: int, working: int = WORKING) -> Store:
        """Evaluate the function.

        Args:
            read: gives rows `first` to `stop` of the image, (B, 3, stop - first, W).
            write: takes rows `first` to `stop` of the result, from the top to the bottom.
            memory: bytes of maps to hold in memory; more go to a scratch file.
            working: bytes to use beside them, if a single row does not need more.

        Returns:
            The store, which tells how much was held and written.
        """
        store = Store(memory)
        try:
            _Run(self.plan, read, write, store, working).all()
        finally:
            store.close()
        return store


class _Run:
    """One evaluation."""

    def __init__(self, plan: Plan, read: Read, write: Write, store: Store, working: int):
        self.plan, self.read, self.write, self.store, self.working = plan, read, write, store, working
        self.maps: dict[Step, Map] = {}
        self.windows: dict[Step, Window] = {}  # rows that wait within a pass
        self.small: dict[Step, Any] = dict(plan.constants)
        self.in_file = in_file(plan, store.memory)
        self.marks: dict[Step, Step] = {}  # of results that are stored
        self.under_way: dict[Step, Any] = {}  # scans, with their states

    def all(self) -> None:
        for number in self.plan.passes:
            self._fill_in(number.number)
            if number.targets:
                self._stream(number)
            if number.whole:  # whole maps do not fit where strips did
                return_free_memory()
            for place, step in enumerate(number.whole):
                if step.part is not None and step.part.kind == "upward":
                    self._upwards(step)
                else:
                    self._at_once(step, number.whole[place + 1 :])
            self.under_way.clear()
            self._forget(number.number)
            self.store.give_back()
            return_free_memory(0 if number.whole else KEPT)
        result = self.plan.result
        if result.kind == "small":  # everything up to it saw whole maps
            self.write(0, self.small[result].shape[2], self.small[result])
        elif result.kind == "whole":
            self.write(0, self.maps[result].done, self.maps[result].take())

    def _fill_in(self, depth: int) -> None:
        """Compute what has no rows and is known by now."""
        for step in self.plan.steps:
            if step.kind == "small" and step.depth <= depth and step not in self.small:
                self.small[step] = self.plan.value(step, self.small.__getitem__)

    def _at_once(self, step: Step, others: Sequence[Step]) -> None:
        """Compute a step that needs whole maps, before others that do in the same pass."""

        @functools.cache
        def value(source: Step) -> Any:
            if source.rows is None:
                return self.small[source]
            last = source.last_pass < step.depth + 1 and not any(source in other.inputs for other in others)
            if last and source.kind != "image":
                return self.maps[source].take()
            return self._rows(source, 0, source.rows.size)

        result = self.plan.value(step, value)
        value.cache_clear()
        if step.rows is None:
            self.small[step] = result
        else:
            self.maps[step] = self.store.map(step.rows.dim)
            self.maps[step].append(result)

    def _upwards(self, step: Step) -> None:
        """Compute a step from the last row of its input to the first; each takes the place of what it is made of."""
        assert step.part is not None and step.rows is not None
        (source,) = step.inputs
        (_, state) = (self.plan.of(node) for node in step.node.all_input_nodes)
        carried = self.small[state]

        def above(rows: Tensor) -> Tensor:
            nonlocal carried
            result, carried = step.part.function(rows, carried)  # type: ignore[union-attr]
            return result

        self.maps[step] = self.maps.pop(source).turned_upwards(above)

    def _rows(self, step: Step, first: int, stop: int) -> Tensor:
        if step.kind == "image":
            return self.read(first, stop)
        return (self.windows if step in self.windows else self.maps)[step].read(first, stop)

    def _forget(self, number: int) -> None:
        for step in [step for step in self.maps if step.last_pass < number + 1]:
            self.maps.pop(step).release(1 << 62)
        # States of scans are not small in a wide image, and each is read in one pass or two.
        later = [step for this in self.plan.passes if this.number > number for step in (*this.steps, *this.whole)]
        later += [step for step in self.plan.steps if step.kind == "small" and step not in self.small]
        read = {self.plan.of(node) for step in later for node in step.node.all_input_nodes}
        for step in [step for step in self.small if step.kind == "sum" and step not in read]:
            del self.small[step]

    def _stream(self, this: Pass) -> None:
        """One pass over the image, from the top to the bottom."""
        schedule = schedule_within(self.plan, this, self.working)
        sums: dict[Step, Any] = {}
        for step in schedule.held:
            if step.last_pass > this.number:
                self.maps[step] = self.store.map(step.along.dim, step in self.in_file)
            if step in schedule.read:
                self.windows[step] = self.store.window(step.along.dim)
        self.marks = {step.inputs[0]: step for step in schedule.held if step.is_mark and step in self.maps}
        for number, computed in schedule.strips_of_all():
            self._strip(this, computed, sums)
            still = schedule.still_needed(number)
            for step in this.steps:
                needed = still.get(step, 1 << 62)
                if step in self.windows:
                    self.windows[step].release(needed)
                elif step in self.maps and step.last_pass <= this.number:
                    self.maps[step].release(needed)
        self.windows.clear()
        for step, total in sums.items():
            assert step.sum is not None
            self.small[step] = step.sum.finish(total)

    def _strip(self, this: Pass, computed: dict[Step, Range], sums: dict[Step, Any]) -> None:
        values: dict[Step, dict[Range, Any]] = {}  # those of held operations in the parts that were read
        uses = dict.fromkeys(this.steps, 0)
        for step in computed:
            for source in step.inputs:
                uses[source] += 1
        lives = Lives(computed, {*self.maps, *self.windows, self.plan.result})
        for step in this.steps:
            part = computed.get(step)
            if part is None:
                continue
            value = self._value(step, part, values, lives)
            lives.end(step)
            for source in step.inputs:
                uses[source] -= 1
                if not uses[source]:
                    values.pop(source, None)
            if step.sum is not None:
                sums[step] = step.sum.join(sums[step], value) if step in sums else step.sum.start(value)
                continue
            if step is self.plan.result:
                self.write(*part, value)
            held = [holds[step] for holds in (self.maps, self.windows) if step in holds]
            for each in held:
                each.append(value)
            if step not in self.windows and uses[step]:
                values[step] = {part: value}

    def _value(self, step: Step, part: Range, values: dict[Step, dict[Range, Any]], lives: Lives) -> Any:
        with offered(self._room(step, part)):
            return self._computed(step, part, values, lives)

    def _room(self, step: Step, part: Range) -> Tensor | None:
        """Memory of the next rows of a convolution or a marked function, where these will wait or be stored."""
        if step.part.kind not in ("local", "rolling", "onward") if step.part is not None else not step.convolves:
            return None
        return self._room_to_wait(step, part)

    def _room_to_wait(self, step: Step, part: Range) -> Tensor | None:
        """Memory of the next rows of a result where these will wait, or be stored; None where they will not."""
        mark = self.marks.get(step)
        held: Window | Map | None = self.windows.get(step)
        if held is None and mark is not None:
            held = self.windows.get(mark) or self.maps[mark]
        return None if held is None else held.room(part[1] - part[0])

    def _computed(self, step: Step, part: Range, values: dict[Step, dict[Range, Any]], lives: Lives) -> Any:
        low, high, size = 0, 0, 0
        for source in step.inputs[:1]:
            low, high = step.need(source, *part)
            size = source.along.size

        def value(source: Step) -> Any:
            if source not in step.inputs:
                return self._sliced(source, step, part)
            wanted = step.need(source, *part)
            if step.in_turn and wanted[0] == wanted[1]:  # it knows all
                return _no_rows(source)
            for have, known in values.get(source, {}).items():
                if have[0] <= wanted[0] and wanted[1] <= have[1]:
                    return _narrowed(known, source.along.dim, have, wanted)
            read = values.setdefault(source, {})[wanted] = self._rows(source, *wanted)
            return read

        if step.kind == "sum":
            return self.plan.partial_sum(step, value)
        if step.in_turn:
            assert step.part is not None
            if step not in self.under_way:
                self.under_way[step] = step.part.function()
            return self.under_way[step](*self.plan.inputs(step, value), rows=slice(*part))
        if step.part is not None and step.part.kind == "onward":
            x, entering, first_state = self.plan.inputs(step, value)
            if step not in self.under_way:
                self.under_way[step] = step.part.function(first_state)
            return self.under_way[step](x, entering)
        return self.plan.part_of(step, Cut(*part, low, high, size), value, self._place(step, part, value, lives))

    def _place(self, step: Step, part: Range, of: Callable[[Step], Any], lives: Lives) -> Tensor | None:
        """Memory that there is for a result already."""
        if into(step.node.target) is None or torch.is_grad_enabled():
            return None
        room = self._room_to_wait(step, part)
        if room is not None or step in self.windows:
            return room
        shape = list(step.node.meta["val"].shape)
        shape[step.along.dim] = part[1] - part[0]
        return lives.spare(step, shape, of)

    def _sliced(self, source: Step, step: Step, part: Range) -> Any:
        """A value without rows; of a full-size constant (a map of positions, say), the rows that are computed."""
        value = self.small[source]
        rows = step.rows
        if rows is None or not isinstance(value, Tensor) or step.kind == "sum" or not step.pointwise:
            return value
        dim = rows.dim - len(step.node.meta["val"].shape) + value.dim()
        return (
            value.narrow(dim, part[0], part[1] - part[0]) if dim >= 0 and value.shape[dim] == rows.size > 1 else value
        )


def _no_rows(step: Step) -> Tensor:
    """Of a step's result."""
    value = step.node.meta["val"]
    shape = list(value.shape)
    shape[step.along.dim] = 0
    return torch.empty(shape, dtype=value.dtype, device=value.device)


def _narrowed(value: Any, dim: int, have: Range, wanted: Range) -> Any:
    """Some rows of a value, or of several, that starts at row `have[0]`."""
    if isinstance(value, (tuple, list)):
        return type(value)(_narrowed(v, dim, have, wanted) for v in value)
    return value.narrow(dim, wanted[0] - have[0], wanted[1] - wanted[0])
