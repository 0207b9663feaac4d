"""Marks in a network's `forward` for `llie.strips`, which evaluates it in strips of rows; otherwise without effect.

Most of a network needs no mark: how convolutions, norms and resizing depend on rows is known. `keep` names the maps
from which later work starts, `in_one_piece` what must see a whole map, and `local` a function that is known to be local
although its code does not show it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Part:
    """One marked place of a network.

    Attributes:
        kind: "keep", "whole" or "local".
        function: what is computed there.
        shape: of the result.
        dtype: of the result.
        halo: for "local": rows of the input around those of a result that it depends on, at most.
        ratio: for "local": rows of the input and rows of the result that belong together; (2, 1) halves the size.
    """

    kind: str
    function: Function
    shape: tuple[int, ...]
    dtype: torch.dtype
    halo: int = 0
    ratio: tuple[int, int] = (1, 1)


_recording: ContextVar[list[Part] | None] = ContextVar("recording", default=None)
_library = torch.library.Library("llie_strips", "DEF")
_library.define("part(Tensor[] inputs, int number) -> Tensor")


@torch.library.register_fake("llie_strips::part", lib=_library)
def _part(inputs: Sequence[Tensor], number: int) -> Tensor:
    parts = _recording.get()
    assert parts is not None, "marks are recorded only within `recorded`"
    return inputs[0].new_empty(parts[number].shape, dtype=parts[number].dtype)


@contextlib.contextmanager
def recorded() -> Iterator[list[Part]]:
    """While it is open, marks appear in traced graphs as `llie_strips::part`, whose second argument is their number."""
    parts: list[Part] = []
    token = _recording.set(parts)
    try:
        yield parts
    finally:
        _recording.reset(token)


def recording() -> bool:
    """Whether a network is being traced for `llie.strips`, so that marks have an effect."""
    # Asked in this order: a compiler does not understand context variables, and must not see them.
    return not torch.compiler.is_compiling() and _recording.get() is not None


def keep(*maps: Tensor) -> Any:
    """The maps themselves; in strips, they are stored and read again where later work needs them.

    What is not kept is computed again by each pass over the image that needs it, from kept maps or the image.
    """
    if recording():
        maps = tuple(_record("keep", lambda x: x, [x], x.shape, x.dtype) for x in maps)
    return maps[0] if len(maps) == 1 else maps


def in_one_piece(function: Function, *inputs: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """`function(*inputs)`, which needs whole maps, and whose code may depend on their values.

    Args:
        function: tensors in, a tensor out.
        *inputs: for it.
        shape: of its result.
        dtype: of its result; that of the first input when None.
    """
    if not recording():
        return function(*inputs)
    return _record("whole", function, list(inputs), shape, dtype or inputs[0].dtype)


def local(function: Function, x: Tensor, like: Function, halo: int | None) -> Tensor:
    """`function(x)`, whose rows depend on the rows around them alone.

    Args:
        function: (B, C, H, W) in, (B, C', H', W') out; zeros or whatever it puts beyond the edges of x are its own. In
            strips, x is some rows, and a second argument tells whether the first and the last of them are those of the
            image; where they are not, the result lacks the rows that need more than x: `halo` rows of x.
        x: its input.
        like: a function with the same result that can be traced; it shows the shape.
        halo: how many rows around, in pixels of x; None if they may depend on all.
    """
    if not recording():
        return function(x)
    shape = like(x).shape
    if halo is None:
        return _record("whole", function, [x], shape, x.dtype)
    rows, result = x.shape[2], shape[2]
    ratio = (-(-rows // result), 1) if rows >= result else (1, result // rows)
    return _record("local", function, [x], shape, x.dtype, halo, ratio)


def _record(
    kind: str,
    function: Function,
    inputs: list[Tensor],
    shape: Sequence[int],
    dtype: torch.dtype,
    halo: int = 0,
    ratio: tuple[int, int] = (1, 1),
) -> Tensor:
    parts = _recording.get()
    assert parts is not None
    parts.append(Part(kind, function, tuple(shape), dtype, halo, ratio))
    return torch.ops.llie_strips.part(inputs, len(parts) - 1)
