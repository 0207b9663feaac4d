"""Where results are written: over an input that nothing needs any more, or behind the rows that wait for later strips.

Without this, an operation in strips would write a new map, of which a window's rows are a copy; networks change maps in
place, but a traced graph has no such operations.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from llie.strips.neighbours import convolution_and_relu
from llie.strips.rules import is_pointwise
from llie.strips.steps import Step

aten = torch.ops.aten
_LAYERS = (
    aten.convolution,
    convolution_and_relu,
    aten.bmm,
    aten.mm,
    aten.addmm,
    aten.cat,
    aten.upsample_bilinear2d,
    aten.avg_pool2d,
)


def _relu(x: Tensor, *, out: Tensor) -> Tensor:
    return torch.clamp_min(x, 0, out=out)


# Operations that can write into given memory; all but `cat` also into that of an input.
_INTO: dict[Any, Callable[..., Tensor]] = {
    aten.relu: _relu,
    **{
        getattr(aten, name): getattr(torch, name)
        for name in ["abs", "add", "addcmul", "clamp", "div", "exp", "lerp", "log", "mul", "sigmoid", "sub", "tanh"]
    },
    **{packet: packet for packet in (aten.leaky_relu, aten.hardtanh, aten.silu, aten.gelu)},
    aten.cat: torch.cat,  # not into an input
}


def into(target: Any) -> Callable[..., Tensor] | None:
    """A form of an operation that takes `out`; None where it has none."""
    return _INTO.get(getattr(target, "overloadpacket", target))


def is_new(target: Any) -> bool:
    """Whether an operation's result never shares memory with its inputs."""
    return is_pointwise(target) or getattr(target, "overloadpacket", target) in _LAYERS


class Lives:
    """How long the memory of each result in a strip is needed.

    Args:
        computed: the steps that are computed.
        stay: steps whose results are needed after the strip.
    """

    def __init__(self, computed: Iterable[Step], stay: Container[Step]):
        self._stay = stay
        self._uses: dict[Step, int] = {}
        for step in computed:
            for source in [*step.inputs, *([step] if step in stay else ())]:
                self._uses[source.origin] = self._uses.get(source.origin, 0) + 1

    def end(self, step: Step) -> None:
        """It is computed: its inputs have one use less."""
        for source in step.inputs:
            self._uses[source.origin] -= 1

    def spare(self, step: Step, shape: Sequence[int], of: Callable[[Step], Any]) -> Tensor | None:
        """An input that only this step needs still, and that can hold its result, of the given shape."""
        if not step.pointwise:
            return None
        for source in step.inputs:
            first = source.origin
            if (
                self._uses[first] == 1
                and first.kind == "local"
                and is_new(first.node.target)
                and not self._stays(source)
            ):
                value = of(source)
                if (
                    isinstance(value, Tensor)
                    and value.dtype == step.node.meta["val"].dtype
                    and value.shape == torch.Size(shape)
                    and _is_dense(value)
                ):
                    return value
        return None

    def _stays(self, step: Step) -> bool:
        return step in self._stay or (step.origin is not step and self._stays(step.inputs[0]))


def _is_dense(x: Tensor) -> bool:
    """Whether a tensor's values fill its memory. Operations on one channel of several are slow."""
    return sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) == x.numel() - 1
