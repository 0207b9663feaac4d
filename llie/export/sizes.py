"""Keeps expressions of sizes short, in recorded graphs and while they are compiled.

Height and width are symbols, so that every size within a network is an expression. PyTorch's compiler simplifies such
expressions thousands of times; this took most of its time, without an end for some networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sympy
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class WholeSizes(TorchFunctionMode):
    """While it lasts, resizing by a factor is recorded as resizing to a size, where that is the same.

    It is where all sizes are multiples of what the factor divides them by. For a factor, PyTorch records arithmetic of
    floating-point numbers, rounded afterwards, which nothing can simplify.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """PyTorch calls this instead of each of its functions."""
        given = dict(kwargs or {})
        factor = given.get("scale_factor")
        if function is F.interpolate and isinstance(factor, int | float):
            size = _whole_size(args[0].shape[2:], factor)
            given |= {} if size is None else {"scale_factor": None, "size": size}
        return function(*args, **given)


def _whole_size(size: Iterable[Any], factor: float) -> tuple[Any, ...] | None:
    """The size after resizing by a factor; None unless the factor, or one divided by it, is whole for every side."""
    if factor >= 1:
        return tuple(side * int(factor) for side in size) if factor == int(factor) else None
    divisor = round(1 / factor)
    sides = tuple(size)
    whole = factor == 1 / divisor and all(statically_known_true(side % divisor == 0) for side in sides)
    return tuple(side // divisor for side in sides) if whole else None


@contextmanager
def quickly_simplified() -> Iterator[None]:
    """While it lasts, `sympy.simplify` only multiplies out.

    PyTorch's compiler calls it for differences of addresses, where that finds the same: they are polynomials.
    """
    simplify = sympy.simplify
    sympy.simplify = lambda expression, **_: sympy.expand(expression)
    try:
        yield
    finally:
        sympy.simplify = simplify
