"""Inference on CPUs in bands of rows, small enough that all maps of a band stay in the processor's cache.

Cheap operations on many channels wait for memory: on whole maps, a depthwise convolution or an activation takes three
to ten times as long. A band works on rows around its own as well, so that the result is that of the whole map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from llie.ops.parts import as_graph, local
from llie.ops.tanh import tanh

BYTES = 2**22  # of a band of the widest map; from 1 to 8 MiB, time differs little


class Band(NamedTuple):
    """Some rows of a map.

    Attributes:
        outer: these rows and those around them; None for the whole map.
        inner: these rows, counted from the first of `outer`.
    """

    outer: slice | None = None
    inner: slice | None = None

    def around(self, x: Tensor) -> Tensor:
        """The band of a map (B, C, H, W), with the rows around it."""
        return x if self.outer is None else x[:, :, self.outer]

    def of(self, result: Tensor) -> Tensor:
        """The band of a result for `around`."""
        return result if self.inner is None else result[:, :, self.inner]


def fast(x: Tensor) -> bool:
    """Whether forms for inference on CPUs may be used: nobody needs gradients, or a graph of the plain operations."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not as_graph()


def bands(x: Tensor, channels: int, halo: int = 0) -> Iterator[Band]:
    """Rows to work on at a time; the whole map where `fast(x)` is false.

    Args:
        x: (B, C, H, W).
        channels: of the widest map that is made of it, at this size.
        halo: how many rows around its own a result depends on.
    """
    batch, _, height, width = x.shape
    rows = height
    if fast(x):
        rows = max(8 * halo, 1, BYTES // (batch * channels * width * x.element_size() or 1))
    if rows >= height:
        yield Band()
        return
    rows = math.ceil(height / math.ceil(height / rows))  # all of about the same size
    for first in range(0, height, rows):
        stop = min(first + rows, height)
        low, high = max(first - halo, 0), min(stop + halo, height)
        yield Band(slice(low, high), slice(first - low, stop - low))


class Joined:
    """A map (B, C, H, W) that is put together from its bands, in order; it is `map`."""

    def __init__(self, height: int):
        self.height, self._row = height, 0

    def add(self, part: Tensor) -> None:
        """Add the next band."""
        if part.shape[2] == self.height:
            self.map = part
            return
        if self._row == 0:
            shape = (*part.shape[:2], self.height, part.shape[3])
            self.map = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last)
        self.map[:, :, self._row : self._row + part.shape[2]].copy_(part)
        self._row += part.shape[2]


def in_bands(function: Callable[..., Tensor], *maps: Tensor, channels: int, halo: int = 0) -> Tensor:
    """`function(*maps)`, a band at a time; where `fast(x)` is false, simply `function(*maps)`.

    Args:
        function: maps (B, C, H, W) of the same size -> (B, C', H, W); rows of the result depend on at most `halo` rows
            around them, and beyond the edges of its input it assumes what it assumes beyond the edges of the image.
        *maps: its input.
        channels: see `bands`.
        halo: see `bands`.
    """

    def run(*maps: Tensor) -> Tensor:
        result = Joined(maps[0].shape[2])
        for band in bands(maps[0], channels, halo):
            result.add(band.of(function(*map(band.around, maps))))
        return result.map

    def run_on_strip(x: Tensor, ends: tuple[bool, bool] = (True, True)) -> Tensor:
        above, below = (0 if end else halo for end in ends)
        return run(x)[:, :, above : x.shape[2] - below]

    return local(run_on_strip, maps[0], function, halo) if len(maps) == 1 else run(*maps)


def add_tanh(x: Tensor, y: Tensor) -> Tensor:
    """`x + y.tanh()`; where `fast(x)` is false, that is all. It may overwrite y.

    There, tanh(y) = 2 sigmoid(2 y) - 1, correct to 1e-7: PyTorch computes tanh by MKL, which on processors other than
    Intel's takes six times as long as a sigmoid.
    """
    if not fast(x) or y.dtype not in (torch.float32, torch.float64):  # a half-precision sigmoid is too coarse near 0
        return x + tanh(y)
    return torch.add(x, y.mul_(2).sigmoid_(), alpha=2).sub_(1)
