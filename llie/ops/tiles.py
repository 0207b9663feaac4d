"""Inference on CPUs in tiles, small enough that all maps of a tile stay in the processor's cache.

Cheap operations on many channels wait for memory: on whole maps, a depthwise convolution or an activation takes three
to ten times as long. A tile works on pixels around its own as well, so that the result is that of the whole map.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llie.ops.parts import WHOLE, Ends, as_graph, blocks, local, new_map, recording
from llie.ops.tanh import tanh

BYTES = 2**22  # of a tile of the widest map; from 1 to 8 MiB, time differs little
ROWS = 16  # that are summed at once where a map comes in strips


class Tile(NamedTuple):
    """A part of a map.

    Attributes:
        inner: its rows and columns.
        outer: its rows and columns with those around them; None for the whole map.
    """

    inner: tuple[slice, slice]
    outer: tuple[slice, slice] | None

    def around(self, x: Tensor) -> Tensor:
        """The tile of a map (B, C, H, W), with the pixels around it."""
        return x if self.outer is None else x[:, :, self.outer[0], self.outer[1]]

    def within(self) -> tuple[slice, slice]:
        """Its rows and columns, counted in `around`."""
        if self.outer is None:
            return self.inner
        (rows, columns), (above, left) = self.inner, (span.start for span in self.outer)
        return slice(rows.start - above, rows.stop - above), slice(columns.start - left, columns.stop - left)

    def of(self, result: Tensor) -> Tensor:
        """The tile of a result for `around`."""
        if self.outer is None:
            return result
        rows, columns = self.within()
        return result[:, :, rows, columns]


def fast(x: Tensor) -> bool:
    """Whether forms for inference on CPUs may be used: nobody needs gradients, or a graph of the plain operations."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not as_graph()


def in_parts(x: Tensor) -> bool:
    """Whether a map is worked on in tiles, or will come in strips of rows."""
    return fast(x) or recording()


def tiles(x: Tensor, channels: int, halo: int = 0, rows: slice | None = None) -> Iterator[Tile]:
    """Parts to work on at a time; one for all where `fast(x)` is false.

    Args:
        x: (B, C, H, W).
        channels: of the widest map that is made of it, at this size.
        halo: how many pixels around its own a result depends on.
        rows: those to work on; None for all.
    """
    batch, _, height, width = x.shape
    rows = rows or slice(0, height)
    size = rows.stop - rows.start, width
    if fast(x):
        pixels = BYTES // (batch * channels * x.element_size() or 1)
        size = _tile_size(*size, max(pixels, (8 * halo) ** 2, 1), halo)
    if size == (height, width):
        yield Tile((rows, slice(0, width)), None)
        return
    for inner_rows in _spans(rows.start, rows.stop, size[0]):
        around = _widened(inner_rows, halo, height)
        for columns in _spans(0, width, size[1]):
            yield Tile((inner_rows, columns), (around, _widened(columns, halo, width)))


@functools.lru_cache(maxsize=256)
def _tile_size(height: int, width: int, pixels: int, halo: int) -> tuple[int, int]:
    """Rows and columns of tiles of about so many pixels that have the fewest pixels around their own."""

    def size(parts: int) -> tuple[int, int]:
        columns = math.ceil(width / parts)
        rows = min(height, max(1, pixels // columns))
        return math.ceil(height / math.ceil(height / rows)), columns  # all of about the same size

    def computed(size: tuple[int, int]) -> float:
        rows, columns = size
        return (1 + 2 * halo / rows * (rows < height)) * (1 + 2 * halo / columns * (columns < width))

    fewest = math.ceil(width / pixels)
    most = width // (8 * halo) if halo else fewest
    return min(map(size, range(fewest, max(fewest, most) + 1)), key=computed)


def _spans(first: int, stop: int, step: int) -> Iterator[slice]:
    for start in range(first, stop, step):
        yield slice(start, min(start + step, stop))


def _widened(span: slice, halo: int, size: int) -> slice:
    return slice(max(span.start - halo, 0), min(span.stop + halo, size))


class Joined:
    """Some rows of a map (B, C, H, W), put together from tiles; they are `map`.

    Args:
        rows: which.
        width: W.
    """

    def __init__(self, rows: slice, width: int):
        self.first, self.size = rows.start, (rows.stop - rows.start, width)
        self._begun = False

    def add(self, tile: Tile, part: Tensor) -> None:
        """Add a tile."""
        if part.shape[2:] == self.size:
            self.map = part
            return
        if not self._begun:
            self.map = new_map((*part.shape[:2], *self.size), part.dtype, part.device)
            self._begun = True
        rows, columns = tile.inner
        self.map[:, :, rows.start - self.first : rows.stop - self.first, columns].copy_(part)


def in_tiles(
    function: Callable[..., Tensor], *maps: Tensor, also: Sequence[Tensor] = (), channels: int, halo: int = 0
) -> Tensor:
    """`function(*maps, *also)`, a tile at a time; where `fast(x)` is false, all at once.

    Args:
        function: maps (B, C, H, W) of the same size, and others -> (B, C', H, W); a pixel of the result depends on at
            most `halo` pixels around it, and beyond the edges of its input it assumes what it assumes beyond those of
            the image.
        *maps: its input.
        also: tensors that are the same for all pixels.
        channels: see `tiles`.
        halo: see `tiles`.
    """

    def run(*inputs: Tensor, ends: Ends = WHOLE) -> Tensor:
        parted, others = inputs[: len(maps)], inputs[len(maps) :]
        rows = ends.without(halo, parted[0].shape[2])
        result = Joined(rows, parted[0].shape[3])
        for tile in tiles(parted[0], channels, halo, rows):
            result.add(tile, tile.of(function(*map(tile.around, parted), *others)))
        return result.map

    return local(run, *maps, *also, like=function, halo=halo)


def summed(function: Callable[..., Tensor], *maps: Tensor, size: int, channels: int, halo: int = 0) -> Tensor:
    """The sum over all pixels of what `function` finds in tiles of the image, (B, size).

    Args:
        function: maps (B, C, H, W) of the same size, around a tile, and the `Tile` -> (B, size), summed over the tile.
        *maps: its input.
        size: numbers that it finds.
        channels: see `tiles`.
        halo: see `tiles`.
    """

    def run(*maps: Tensor, ends: Ends = WHOLE) -> Tensor:
        rows = ends.without(halo, maps[0].shape[2])
        return torch.stack([of_rows(maps, part) for part in _spans(rows.start, rows.stop, ROWS)], 1)[:, None]

    def of_rows(maps: tuple[Tensor, ...], rows: slice | None) -> Tensor:
        found = [function(*map(tile.around, maps), tile) for tile in tiles(maps[0], channels, halo, rows)]
        return torch.stack(found).sum(0)

    if not recording():
        return of_rows(maps, None)
    return blocks(run, *maps, size=size, rows=ROWS, halo=halo).sum(2)[:, 0]


def add_tanh(x: Tensor, y: Tensor) -> Tensor:
    """`x + y.tanh()`; where `fast(x)` is false, that is all. It may overwrite y.

    There, tanh(y) = 2 sigmoid(2 y) - 1, correct to 1e-7: PyTorch computes tanh by MKL, which on processors other than
    Intel's takes six times as long as a sigmoid.
    """
    if not fast(x) or y.dtype not in (torch.float32, torch.float64):  # a half-precision sigmoid is too coarse near 0
        return x + tanh(y)
    return torch.add(x, y.mul_(2).sigmoid_(), alpha=2).sub_(1)
