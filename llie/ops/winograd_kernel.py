"""The form of Winograd's convolutions whose tiles go to the points and back in C, `winograd.c`; see `winograd.py`.

It computes the same as `winograd_matrices.py`, in float32, in half the time.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from llie.ops.c_library import compiled_library
from llie.ops.winograd_matrices import INVERSES, TILE, TILES

SOURCE = Path(__file__).with_name("winograd.c")
ORDER, FLIPPED = ((ctypes.c_int64 * 6)(*order) for order in (range(6), INVERSES))  # of the points


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("height", "width", "channels", "down", "across")]


def prepare() -> None:
    """Compile and load the kernel; raises OSError or RuntimeError if that is not possible."""
    _library()


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, flipped: bool, result: Tensor) -> None:
    """See `winograd_matrices.convolve`."""
    library, threads = _library(), torch.get_num_threads()
    order = FLIPPED if flipped else ORDER
    added = None if bias is None else bias.contiguous()
    address = None if added is None else added.data_ptr()
    for first, tiles, products in _in_parts(x, result):
        count = tiles.shape[1]
        library.images_at_points(x.data_ptr(), _shape(x), first, count, tiles.data_ptr(), order, threads)
        torch.bmm(tiles, kernel, out=products)
        library.results(
            products.data_ptr(), address, result.data_ptr(), _shape(result), first, count, order, threads
        )  # fmt: skip


def correlate(x: Tensor, grad: Tensor, total: Tensor) -> None:
    """See `winograd_matrices.correlate`."""
    library, threads = _library(), torch.get_num_threads()
    for first, tiles, grads in _in_parts(x, grad):
        count = tiles.shape[1]
        library.images_at_points(x.data_ptr(), _shape(x), first, count, tiles.data_ptr(), ORDER, threads)
        library.gradients_at_points(grad.data_ptr(), _shape(grad), first, count, grads.data_ptr(), ORDER, threads)
        total.baddbmm_(tiles.transpose(1, 2), grads)


def _in_parts(x: Tensor, result: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """All tiles in turn: the first of each part, and room for its values at the points, (36, tiles, C) and C'."""
    shape = _shape(x)
    total, threads = len(x) * shape.down * shape.across, torch.get_num_threads()
    # Several threads wait for each other three times in each part: for long, where another program needs their cores.
    size = TILES if threads == 1 else TILES * min(2 * threads, 16)
    most = -(-total // max(1, round(total / size)))  # parts of about the same size
    room, room_of_result = (x.new_empty(36 * most * each.shape[1]) for each in (x, result))
    for first in range(0, total, most):
        count = min(most, total - first)
        yield first, _part(room, count, x.shape[1]), _part(room_of_result, count, result.shape[1])


def _part(room: Tensor, count: int, channels: int) -> Tensor:
    return room[: 36 * count * channels].view(36, count, channels)


def _shape(x: Tensor) -> _Shape:
    _, channels, height, width = x.shape
    return _Shape(height, width, channels, -(-height // TILE), -(-width // TILE))


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer, threads = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    for name in ("images_at_points", "gradients_at_points"):
        getattr(library, name).argtypes = [pointer, _Shape, integer, integer, pointer, pointer, threads]
    library.results.argtypes = [*[pointer] * 3, _Shape, integer, integer, pointer, threads]
    for name in ("images_at_points", "gradients_at_points", "results"):
        getattr(library, name).restype = None
    return library
