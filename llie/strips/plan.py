"""The order of work for a network at one image size: which passes over the image there are, and what each computes.

A pass streams the image from top to bottom. It ends where something is needed that depends on the whole image: a mean,
a product summed over all pixels, an operation that must see a whole map. The next pass starts from kept maps.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

import llie.strips.neighbours
import llie.strips.views  # noqa: F401 - the rules of both are found by `rule_of`
from llie.ops.parts import Ends, Part
from llie.strips.results import into
from llie.strips.rules import Cut, Local, Node, Range, Rows, rule_of, same, shape_of
from llie.strips.steps import Pass, Step
from llie.strips.sums import Sum, sum_of


class Plan:
    """The steps and passes of a traced network.

    Args:
        graph: see `llie.strips.trace.trace`.
        parts: its marked parts.

    Attributes:
        steps: all, in order.
        passes: in order.
        image: the step that stands for the image.
        result: the step whose rows are the result.
        constants: values of steps that depend on no image.
    """

    def __init__(self, module: fx.GraphModule, parts: Sequence[Part]):
        self.module, self.parts = module, parts
        self.steps: list[Step] = []
        self.constants: dict[Step, Any] = {}
        self._of: dict[fx.Node, Step] = {}
        for node in module.graph.nodes:
            if node.op == "output":
                if not isinstance(node.args[0], fx.Node):
                    raise TypeError("the network does not return a tensor")
                self.result = self._of[node.args[0]]
            else:
                self._of[node] = step = self._step(node)
                self.steps.append(step)
        self.image = self.steps[0]
        self.passes = self._passes()

    def _rows_of(self, node: Any) -> Rows | None:
        return self._of[node].rows if isinstance(node, fx.Node) else None

    def _constant(self, node: fx.Node) -> Any:
        return self.constants.get(self._of[node])

    def _step(self, node: fx.Node) -> Step:
        if node.op == "placeholder":
            return Step(node, "image", rows=Rows(2, shape_of(node)[2]))
        before = [self._of[n] for n in node.all_input_nodes]
        inputs = [step for step in before if step.rows is not None]
        depth = max((step.depth + step.ends_pass for step in before), default=0)
        if node.op == "get_attr":
            step = Step(node, "small")
            self.constants[step] = functools.reduce(getattr, str(node.target).split("."), self.module)
            return step
        if not inputs:
            marked = node.target is torch.ops.llie_strips.part.default
            step = Step(node, "small", part=self._mark(node) if marked else None, depth=depth)
            if all(s in self.constants for s in before):
                self.constants[step] = self.value(step, self.constants.__getitem__)
            return step
        if node.target is operator.getitem:
            (source,) = inputs
            if source.kind == "sum":
                return Step(node, "small", depth=depth)
            take = Local(source.along, lambda a, b: (a, b), lambda args, kwargs, cut: args[0][args[1]], view=True)
            return Step(node, "local", inputs, source.rows, take, depth=depth)
        if node.target is torch.ops.llie_strips.part.default:
            return self._part(node, inputs, depth)
        described = Node(node, self._rows_of, self._constant)
        local = rule_of(described)
        if local is not None:
            return Step(node, "local", inputs, local.rows, local, depth=depth)
        total = sum_of(described)
        if total is not None:
            return Step(node, "sum", inputs, sum=total, depth=depth)
        return self._whole(node, inputs, depth)

    def _mark(self, node: fx.Node) -> Part:
        number: Any = node.args[1]
        return self.parts[number]

    def _part(self, node: fx.Node, inputs: list[Step], depth: int) -> Step:
        part = self._mark(node)
        if part.kind == "upward":
            return Step(node, "whole", inputs, Rows(2, part.shape[2]), part=part, depth=depth)
        if part.kind == "whole" or inputs[0].rows is None:
            return self._whole(node, inputs, depth, part)
        source = inputs[0].rows
        if part.kind == "fold":
            return Step(node, "sum", inputs, sum=_fold(part), part=part, depth=depth)
        if part.kind == "onward":
            return Step(node, "local", inputs, source, _onward(part, inputs), part=part, depth=depth)
        if part.kind in ("keep", "apart"):
            kept = Local(source, same, lambda args, kwargs, cut: args[0][0], view=True)
            return Step(node, "local", inputs, source, kept, part=part, depth=depth, stored=True)
        if source.dim != 2:
            return self._whole(node, inputs, depth, part)
        make = {"local": _of_function, "rolling": _in_turn, "blocks": _of_blocks}[part.kind]
        return Step(node, "local", inputs, Rows(2, part.shape[2]), make(part, inputs), part=part, depth=depth)

    def _whole(self, node: fx.Node, inputs: list[Step], depth: int, part: Part | None = None) -> Step:
        value = node.meta["val"]
        # Any dimension would do; the one that images and tokens have their rows in is what later operations expect.
        dims = {4: 2, 3: 1}
        rows = None
        if isinstance(value, Tensor) and value.dim() in dims and value.numel() > 2**16:
            rows = Rows(dims[value.dim()], value.shape[dims[value.dim()]])
        return Step(node, "whole", inputs, rows, part=part, depth=depth)

    def value(self, step: Step, of: Callable[[Step], Any]) -> Any:
        """Compute a step that sees all of its inputs."""
        args, kwargs = self._arguments(step, of)
        if step.part is not None:
            return step.part.function(*args[0])
        target: Any = step.node.target
        return target(*args, **kwargs)

    def part_of(self, step: Step, cut: Cut, of: Callable[[Step], Any], out: Tensor | None = None) -> Any:
        """Compute some rows of a local step; those of one that has a form `into` given memory, in `out`."""
        assert step.local is not None
        args, kwargs = self._arguments(step, of)
        write = into(step.node.target)
        if out is not None and write is not None:
            return write(*args, **kwargs, out=out)
        return step.local.run(args, kwargs, cut)

    def of(self, node: fx.Node) -> Step:
        """The step of a node."""
        return self._of[node]

    def inputs(self, step: Step, of: Callable[[Step], Any]) -> Any:
        """The tensors that a marked place gets."""
        return self._arguments(step, of)[0][0]

    def partial_sum(self, step: Step, of: Callable[[Step], Any]) -> Any:
        """What some rows add to a sum."""
        assert step.sum is not None
        return step.sum.part(self._arguments(step, of)[0])

    def _arguments(self, step: Step, of: Callable[[Step], Any]) -> tuple[Any, Any]:
        """A node's args and kwargs, with values in place of other nodes."""
        args: Any = fx.node.map_arg(step.node.args, lambda n: of(self._of[n]))
        kwargs: Any = fx.node.map_arg(step.node.kwargs, lambda n: of(self._of[n]))
        return args, kwargs

    def _passes(self) -> list[Pass]:
        """From the last to the first: a pass decides which kept maps the passes before it must store."""
        passes = []
        wanted: set[Step] = {self.result}
        for step in self.steps:
            if step.kind == "whole":
                for source in step.inputs:
                    source.stored = True
                    source.last_pass = max(source.last_pass, step.depth + 0.5)
                    wanted.add(source)
        for number in range(self.result.depth, -1, -1):
            whole = [s for s in self.steps if s.kind == "whole" and s.depth == number]
            targets = [
                s
                for s in self.steps
                if s.depth == number and (s.kind == "sum" or (s in wanted and s.kind in ("local", "image")))
            ]
            steps = self._ancestors(targets, number)
            for step in steps:
                if self.read_from_store(step, number):
                    step.last_pass = max(step.last_pass, number)
                    wanted.add(step)
            passes.append(Pass(number, steps, targets, whole))
        return passes[::-1]

    def _ancestors(self, targets: list[Step], number: int) -> list[Step]:
        found: set[Step] = set()
        stack = list(targets)
        while stack:
            step = stack.pop()
            if step not in found:
                found.add(step)
                if not self.read_from_store(step, number):
                    stack += step.inputs
        return [step for step in self.steps if step in found]

    def read_from_store(self, step: Step, number: int) -> bool:
        """Whether a pass finds the step's rows in the store, or in the image."""
        return step.kind in ("image", "whole") or (step.stored and step.depth < number)


def _fold(part: Part) -> Sum:
    """The rule of something that is found from all rows in turn."""
    fold: Any = part.function
    return Sum(lambda args: args[0][0], fold.add, fold.finish, start=lambda rows: fold.add(None, rows))


def _onward(part: Part, inputs: Sequence[Step]) -> Local:
    """The rule of a scan that computes blocks of rows in turn, given what enters each of them from below."""
    rows = part.ratio[0]

    def need(first: int, stop: int) -> Range:
        return first // rows * rows, -(-stop // rows) * rows

    def block(first: int, stop: int) -> Range:
        return first // rows, -(-stop // rows)

    return Local(Rows(2, part.shape[2]), need, _by_the_run, grain=rows, others={inputs[1].node: block})


def _by_the_run(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> Tensor:
    raise AssertionError("it has a state, which the run holds")


def _of_function(part: Part, inputs: Sequence[Step]) -> Local:
    """The rule of a marked function: computed on more rows than asked for, and cut."""
    many, few = part.ratio
    margin = -(-part.halo // many) * many
    size, result = inputs[0].along.size, part.shape[2]

    def need(first: int, stop: int) -> Range:
        low = first * many // few // many * many
        return low - margin, -(-stop * many // few) + margin

    def computed(low: int, high: int) -> Range:
        """The rows of the result that it computes from some of its input."""
        begin = 0 if low <= 0 else (low + margin) * few // many
        return begin, result if high >= size else (high - margin) * few // many

    def run(args: Sequence[Any], kwargs: dict[str, Any], cut: Cut) -> Tensor:
        begin, _ = computed(cut.low, cut.high)
        return part.function(*args[0], ends=_ends(cut)).narrow(2, cut.first - begin, cut.stop - cut.first)

    of_result = [step.node for step in inputs if step.along.size == result != size]
    others = dict.fromkeys(of_result, lambda first, stop: computed(*need(first, stop)))
    return Local(Rows(2, result), need, run, others=others)


def _in_turn(part: Part, inputs: Sequence[Step]) -> Local:
    """The rule of a function that computes rows in turn, and remembers what it needs of those that it got before."""
    size = part.shape[2]

    def need(first: int, stop: int) -> Range:
        return first + part.halo if first else 0, stop + part.halo

    beside = inputs[len(inputs) - part.beside :]
    return Local(Rows(2, size), need, _by_the_run, others={step.node: same for step in beside})


def _of_blocks(part: Part, inputs: Sequence[Step]) -> Local:
    """The rule of a function that finds something in blocks of rows."""
    rows, _ = part.ratio

    def need(first: int, stop: int) -> Range:
        return first * rows - part.halo, stop * rows + part.halo

    return Local(Rows(2, part.shape[2]), need, lambda args, kwargs, cut: part.function(*args[0], ends=_ends(cut)))


def _ends(cut: Cut) -> Ends:
    return Ends(cut.low == 0, cut.high == cut.size, cut.low)
