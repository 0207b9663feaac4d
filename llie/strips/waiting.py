"""Which stored maps wait in the scratch file where memory does not suffice: those that are read latest."""

from __future__ import annotations

import math

from llie.strips.plan import Plan
from llie.strips.steps import Step


def in_file(plan: Plan, memory: int) -> set[Step]:
    """Stored maps to write to the file, so that the others fit into so many bytes, as far as that is possible.

    Otherwise the first ones would stay in memory, however long they wait, and all later ones go to the file.
    """
    reads: dict[Step, list[float]] = {}
    for this in plan.passes:
        for step in this.steps:
            if step.kind != "image" and plan.read_from_store(step, this.number):
                reads.setdefault(step, []).append(this.number)
        for whole in this.whole:
            for step in whole.inputs:
                reads.setdefault(step, []).append(this.number + 0.5)
    chosen: set[Step] = set()
    for this in plan.passes:
        live = {step for step in reads if step.depth <= this.number <= max(reads[step])} - chosen
        waiting = [step for step in live if step.depth < this.number < min(reads[step])]
        for step in sorted(waiting, key=lambda step: -min(reads[step])):
            if sum(map(_bytes, live - chosen)) > memory:
                chosen.add(step)
    return chosen


def _bytes(step: Step) -> int:
    value = step.node.meta["val"]
    return math.prod(value.shape) * value.element_size()
