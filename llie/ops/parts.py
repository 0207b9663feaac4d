"""Marks in a network's `forward` for `llie.strips`, which evaluates it in strips of rows; otherwise without effect.

Most of a network needs no mark: how convolutions, norms and resizing depend on rows is known. `keep` names the maps
from which later work starts, `in_one_piece` what must see a whole map, and `local` a function that is known to be local
although its code does not show it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

from llie.ops.exporting import exporting

Function = Callable[..., Tensor]


class Ends(NamedTuple):
    """Where some rows of a map lie in it.

    Attributes:
        top: whether the first is that of the map.
        bottom: whether the last is that of the map.
        first: number of the first.
    """

    top: bool
    bottom: bool
    first: int

    def without(self, halo: int, height: int) -> slice:
        """The rows but for a halo where they are not at the end of the map; `height` is how many there are."""
        return slice(0 if self.top else halo, height if self.bottom else height - halo)

    def padded(self, x: Tensor, zeros: int) -> Tensor:
        """The rows (B, C, H, W) with rows of zeros around the map."""
        above, below = (zeros if end else 0 for end in (self.top, self.bottom))
        return F.pad(x, (0, 0, above, below)) if above or below else x  # `pad` copies in any case


WHOLE = Ends(True, True, 0)


_offered: ContextVar[Tensor | None] = ContextVar("offered", default=None)


@contextlib.contextmanager
def offered(place: Tensor | None) -> Iterator[None]:
    """While it is open, the first result made by `new_map` with the shape and the type of this memory lies there."""
    token = _offered.set(place)
    try:
        yield
    finally:
        _offered.reset(token)


def new_map(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Memory for a map (B, C, H, W), channels last; that which is `offered`, if it is like that."""
    place = _offered.get()
    if (
        place is not None
        and (place.shape, place.dtype, place.device) == (torch.Size(shape), dtype, torch.device(device))
        and place.is_contiguous(memory_format=torch.channels_last)
    ):
        _offered.set(None)
        return place
    return torch.empty(tuple(shape), dtype=dtype, device=device, memory_format=torch.channels_last)


@dataclass(frozen=True)
class Part:
    """One marked place of a network.

    Attributes:
        kind: "keep", "apart", "whole", "local", "rolling", "blocks", or a step of `scanned`: "fold", "upward" or
            "onward".
        function: what is computed there.
        shape: of the result.
        dtype: of the result.
        halo: for "local", "rolling" and "blocks": rows of the input around those of a result that it depends on, at
            most.
        ratio: for them: rows of the input and rows of the result that belong together; (2, 1) halves the size.
        beside: for "rolling": how many of the last maps are needed in the rows of the result.
    """

    kind: str
    function: Callable[..., Any]
    shape: tuple[int, ...]
    dtype: torch.dtype
    halo: int = 0
    ratio: tuple[int, int] = (1, 1)
    beside: int = 0


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


def as_graph() -> bool:
    """Whether operations become a graph, for strips, an exporter or a compiler, so that they must be the plain ones."""
    return torch.compiler.is_compiling() or exporting() or recording() or torch.jit.is_tracing()


def watched() -> bool:
    """Whether operations become a graph or are counted, so that they must be the plain ones."""
    return as_graph() or _get_current_dispatch_mode() is not None


def keep(*maps: Tensor) -> Any:
    """The maps themselves; in strips, they are stored and read again where later work needs them.

    What is not kept is computed again by each pass over the image that needs it, from kept maps or the image.
    """
    if recording():
        maps = tuple(_record("keep", lambda x: x, [x], x.shape, x.dtype) for x in maps)
    return maps[0] if len(maps) == 1 else maps


def apart(x: Tensor) -> Tensor:
    """The map itself; in strips, it is stored, and all work on it waits until it is complete.

    Work after it can then have strips of another height. Where few large maps follow many small ones, these would
    otherwise be computed a row at a time.
    """
    return _record("apart", lambda x: x, [x], x.shape, x.dtype) if recording() else x


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


def local(function: Function, *maps: Tensor, like: Function, halo: int | None) -> Tensor:
    """`function(*maps)`, whose rows depend on the rows around them alone.

    Args:
        function: (B, C, H, W) in, (B, C', H', W') out; zeros or whatever it puts beyond the edges of x are its own. In
            strips, it gets some rows of all maps, and `ends` says where these lie; where they do not reach to the top
            or to the bottom, the result lacks the rows that need more than them: `halo` rows of the maps.
        *maps: its input, of equal height. After the first, there may be maps of the height of the result, of which it
            gets those rows that belong to the result, and tensors that are the same for all rows.
        like: a function with the same result that can be traced; it shows the shape.
        halo: how many rows around, in pixels of the maps; None if they may depend on all.
    """
    if not recording():
        return function(*maps)
    shape, x = like(*maps).shape, maps[0]
    if halo is None:
        return _record("whole", function, list(maps), shape, x.dtype)
    rows, result = x.shape[2], shape[2]
    ratio = (-(-rows // result), 1) if rows >= result else (1, result // rows)
    return _record("local", function, list(maps), shape, x.dtype, halo, ratio)


def rolling(
    function: Function,
    *maps: Tensor,
    like: Function,
    halo: int,
    begin: Callable[[], Callable[..., Tensor]],
    beside: int = 0,
) -> Tensor:
    """`function(*maps)`, whose rows depend on the rows around them, and which has a form that gets rows in turn.

    In strips, that form computes nothing twice: it remembers what the next rows need of those before.

    Args:
        function: (B, C, H, W) in, (B, C', H, W) out.
        *maps: see `local`.
        like: see `local`.
        halo: how many rows after its own a row of the result depends on.
        begin: returns the other form, for one image. It gets those rows of all maps that were not there before, and, as
            `rows`, which rows of the result to compute.
        beside: of so many of the last maps, it gets these rows instead.
    """
    if not recording():
        return function(*maps)
    shape = like(*maps).shape
    return _record("rolling", begin, list(maps), shape, maps[0].dtype, halo, beside=beside)


def blocks(function: Function, *maps: Tensor, size: int, rows: int, halo: int) -> Tensor:
    """What `function` finds in blocks of rows, as a map with a row for each: (B, 1, blocks, size); in strips only.

    Args:
        function: as for `local`, but for its result, which has a row for each block: (B, 1, blocks, size).
        *maps: its input, of equal height.
        size: numbers found in a block.
        rows: of a block; the last one may have fewer.
        halo: see `local`.
    """
    x = maps[0]
    shape = (len(x), 1, -(-x.shape[2] // rows), size)
    return _record("blocks", function, list(maps), shape, torch.promote_types(x.dtype, torch.float32), halo, (rows, 1))


class Scan(Protocol):
    """An operation with states that run through the image, down and up, in blocks of rows.

    Attributes:
        rows: of a block.
        size: numbers that describe a block.
    """

    rows: int
    size: int

    def describe(self, x: Tensor, ends: Ends) -> Tensor:
        """What must be known of blocks for the states that come from below: (1, 1, blocks, size)."""

    def follow(self, before: Any, x: Tensor) -> Any:
        """Add rows to what must be known of the whole image for the states that begin at the top."""

    def compose(self, before: Any, described: Tensor) -> Any:
        """Add blocks to what must be known of the whole image for the states that begin at the bottom."""

    def first_states(self, total: Any, backwards: bool) -> Tensor:
        """The states at the top, or at the bottom, from what is known of the whole image."""

    def from_below(self, described: Tensor, entering: Tensor) -> tuple[Tensor, Tensor]:
        """The states that enter blocks from below, (1, 1, blocks, size), and those that leave them."""

    def begin(self, first: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """A function of the rows of blocks, in turn, and of what enters these from below, to the results."""


def scanned(function: Function, x: Tensor, scan: Callable[[], Scan]) -> Tensor:
    """`function(x)`, which has the shape of x (1, C, H, W), and which `scan` computes in blocks of rows."""
    if not recording():
        return function(x)
    made = scan()
    states: list[int] = []  # shapes that nobody needs
    blocks = (1, 1, -(-x.shape[2] // made.rows), made.size)
    described = keep(_record("local", made.describe, [x], blocks, torch.float32, 0, (made.rows, 1)))

    def fold(add: Callable[..., Any], backwards: bool, of: Tensor, rows: int) -> Tensor:
        finish = functools.partial(made.first_states, backwards=backwards)
        return _record("fold", Fold(add, finish), [of], states, torch.float32, ratio=(rows, 1))

    top, bottom = fold(made.follow, False, x, made.rows), fold(made.compose, True, described, 1)
    entering = _record("upward", made.from_below, [described, bottom], blocks, torch.float32)
    return _record("onward", made.begin, [x, entering, top], x.shape, torch.float32, ratio=(made.rows, 1))


@dataclass(frozen=True)
class Fold:
    """Something that is found from all rows in turn: `finish(add(... add(None, rows) ..., rows))`."""

    add: Callable[..., Any]
    finish: Callable[[Any], Any]

    def __call__(self, rows: Tensor) -> Any:
        """Of all rows at once."""
        return self.finish(self.add(None, rows))


def _record(
    kind: str,
    function: Callable[..., Any],
    inputs: list[Tensor],
    shape: Sequence[int],
    dtype: torch.dtype,
    halo: int = 0,
    ratio: tuple[int, int] = (1, 1),
    beside: int = 0,
) -> Tensor:
    parts = _recording.get()
    assert parts is not None
    parts.append(Part(kind, function, tuple(shape), dtype, halo, ratio, beside))
    return torch.ops.llie_strips.part(inputs, len(parts) - 1)
