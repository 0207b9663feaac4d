"""Residual dense blocks in C (`dense_block.c`): a few rows at a time go through all layers, and each is computed once.

In strips, rows come in turn. Every layer of such a block reads the input and the maps of all layers before it; a 1x1
convolution combines them all.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from llie.ops import pointwise, winograd_kernel
from llie.ops.c_library import available, compiled_library
from llie.ops.parts import new_map
from llie.ops.pointwise import Pointwise
from llie.ops.winograd import Kernels
from llie.ops.winograd_matrices import TILE

SOURCE = Path(__file__).with_name("dense_block.c")
ROWS = 8  # to take through all layers before others, a multiple of TILE
VALUES = 2**19  # of all maps in these rows of a band, about: so many stay in the cache


class _Dense(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("width", "growth", "layers")),
        ("kernels", ctypes.POINTER(winograd_kernel.Factor)),
        ("fusion", pointwise.Factor),
    ]


class _Band(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("first", "stop", "inner_first", "inner_stop")),
        ("kept", ctypes.c_void_p),
    ]


class _Progress(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("known", "done")]


class _Rows(ctypes.Structure):
    _fields_ = [("values", ctypes.c_void_p), ("row", ctypes.c_int64)]


@functools.cache
def works() -> bool:
    """Whether there is a compiler for it."""
    return available(_library, "dense blocks")


class DenseBlock:
    """The weights of a block, as they are used; see `llie.archs.drbn.RDB`.

    Args:
        kernels: for the input, and for the map of each layer but the last: of all layers that read it.
        bias: of all layers.
        fusion: the 1x1 convolution.
        width: channels of the input and of the result, at least 8.
        growth: channels of each layer's map, a multiple of 8.
    """

    def __init__(self, kernels: Sequence[Kernels], bias: Tensor, fusion: Pointwise, width: int, growth: int):
        self.kernels, self.fusion, self.width, self.growth = kernels, fusion, width, growth
        self.bias = winograd_kernel.with_vector(bias)

    @property
    def layers(self) -> int:
        """How many; as many rows and columns around its own does a result depend on."""
        return len(self.kernels)

    def fits(self, x: Tensor) -> bool:
        """Whether images can be computed by it."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return False
        return x.shape[3] >= 8 and works()  # a 1x1 convolution needs as many pixels

    def begin(self) -> InTurn:
        """For one image."""
        return InTurn(self)

    def __call__(self, x: Tensor, *added: Tensor) -> Tensor:
        """X (B, width, H, W) -> the same shape, channels last, to which x and all others are added."""
        rows = slice(0, x.shape[2])
        images = [self.begin()(*maps, rows=rows) for maps in zip(*(each.split(1) for each in (x, *added)), strict=True)]
        return images[0] if len(images) == 1 else torch.cat(images)


class InTurn:
    """A block on one image whose rows come in turn, from the top to the bottom.

    Args:
        block: its weights.
    """

    def __init__(self, block: DenseBlock):
        self.block = block
        self._known = self._done = 0  # rows of x, and of the result
        self._kept = torch.empty(0)  # what later rows need, of each band
        self._bands: ctypes.Array[_Band] | None = None

    def __call__(self, x: Tensor, *added: Tensor, rows: slice) -> Tensor:
        """The next rows of the result, to which rows of other maps are added.

        Args:
            x: (1, width, h, W): the rows that were not there before, up to as many rows after those of the result as
                there are layers, or up to the last one.
            *added: (1, width, rows, W).
            rows: which rows of the result.

        Returns:
            (1, width, rows, W), channels last.
        """
        block, library, threads = self.block, _library(), torch.get_num_threads()
        before, now = _Progress(self._known, self._done), _Progress(self._known + x.shape[2], rows.stop)
        if rows.start != before.done or now.known - now.done > block.layers:
            raise ValueError(f"dense block: rows {rows.start} to {rows.stop} and {now.known} rows of x do not fit")
        if self._bands is None:
            self._bands = self._divided(x.shape[3], threads)
        kernels = [kernel.factor for kernel in block.kernels]  # must live until the end
        factors = (winograd_kernel.Factor * block.layers)(
            *(
                winograd_kernel.factor_of(kernel, None if layer else block.bias, (block.layers - layer) * block.growth)
                for layer, kernel in enumerate(kernels)
            )
        )
        dense = _Dense(block.width, block.growth, block.layers, factors, block.fusion.factor)
        x, *maps = (each.contiguous(memory_format=torch.channels_last) for each in (x, *added))
        result = new_map((1, block.width, rows.stop - rows.start, x.shape[3]), torch.float32)
        each = library.room_of_thread(dense, max(band.stop - band.first for band in self._bands), ROWS)
        room = torch.empty(threads * each)
        library.next_rows(
            dense, self._bands, len(self._bands), before, now, _rows(x), (_Rows * len(maps))(*map(_rows, maps)),
            len(maps), _rows(result), ROWS, room.data_ptr(), each, threads,
        )  # fmt: skip
        self._known, self._done = now.known, now.done
        return result

    def _divided(self, width: int, threads: int) -> ctypes.Array[_Band]:
        """Bands of about equal numbers of columns, so that all threads end together."""
        block, margin = self.block, -(-self.block.layers // TILE) * TILE
        channels = block.width + (2 * block.layers - 1) * block.growth  # of all maps
        least = 8 * margin  # columns, because results of the margins are computed twice
        count = -(-width // max(least, VALUES // ((ROWS + block.layers + 1) * channels)))
        if width >= threads * least:
            count = -(-count // threads) * threads
        edges = [width * number // count // TILE * TILE for number in range(count)] + [width]
        inner = list(itertools.pairwise(edges))
        outer = [(max(0, first - margin), min(stop + margin, width)) for first, stop in inner]
        sizes = [(block.layers + 1) * channels * (stop - first) for first, stop in outer]
        self._kept = torch.empty(sum(sizes))
        kept = [part.data_ptr() for part in self._kept.split(sizes)]
        return (_Band * count)(*(_Band(*o, *i, k) for o, i, k in zip(outer, inner, kept, strict=True)))


def _rows(x: Tensor) -> _Rows:
    return _Rows(x.data_ptr(), x.shape[1] * x.shape[3])


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.next_rows.argtypes = [
        _Dense, ctypes.POINTER(_Band), integer, _Progress, _Progress, _Rows, ctypes.POINTER(_Rows), integer, _Rows,
        integer, pointer, integer, ctypes.c_int,
    ]  # fmt: skip
    library.next_rows.restype = None
    library.room_of_thread.argtypes = [_Dense, integer, integer]
    library.room_of_thread.restype = integer
    return library
