"""The form of Winograd's convolutions in C, `winograd.c`, for float32 and bfloat16; see `winograd.py`.

It computes the same as `winograd_matrices.py`, several times as fast. Products are computed in float32 for both types,
or in integers.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from llie.ops.c_library import compiled_library
from llie.ops.integers import DEPTH, Integers
from llie.ops.winograd_matrices import POINTS_OF_TILE, TILE, Output, from_points

SOURCE = Path(__file__).with_name("winograd.c")
GAP, LINES = 16, 16384  # see winograd_points.h
COST_OF_TILES = 2  # what it costs to begin with some tiles, in tiles
TILES = 24  # at a time, for each thread: their values and products stay in the cache
TILES_IF_WIDE = 96  # where the kernel does not fit into the cache, and is read again for each of these
WIDE = 256 * 256  # pairs of channels
NARROW = 64 * 64  # up to here, each thread has its own sum
TILES_OF_SUM = 48  # the same for gradients of kernels, which are summed over all tiles
TILES_OF_SUM_IF_WIDE = 192


class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64) for name in ("height", "width", "channels", "down", "across", "half", "replicated")
    ]


class _Images(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "more")), *((name, _Shape) for name in ("of_x", "of_more")),
        ("above", ctypes.c_int64),
    ]  # fmt: skip


class _Map(ctypes.Structure):
    _fields_ = [("values", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("image", "row", "pixel"))]


class _Output(ctypes.Structure):
    _fields_ = [
        *(("to", _Map), ("added", _Map), ("channels", ctypes.c_int64), ("relu", ctypes.c_int64)),
        ("slope", ctypes.c_double),
    ]


class Factor(ctypes.Structure):
    """`factor` of winograd.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("kernel", "scales", "bias")),
        ("columns", ctypes.c_int64),
    ]


def prepare() -> None:
    """Compile and load the kernel; raises OSError or RuntimeError if that is not possible."""
    _library()


def at_points(weight: Tensor, backward: bool) -> Tensor:
    """A kernel (C', C, 3, 3) at the 36 points, or the flipped one for gradients; in the order that `convolve` reads."""
    library = _library()
    weight = _wide(_wide(weight.detach().float()).transpose(0, 1)).transpose(0, 1)
    of_output, of_input, _, of_tap = weight.stride()
    if weight.stride(2) != 3 * of_tap:
        weight = weight.contiguous()
        of_output, of_input, _, of_tap = weight.stride()
    outputs, inputs = weight.shape[:2]
    # The flipped kernel begins with the last tap.
    taps = (
        (weight.data_ptr() + 8 * of_tap * weight.element_size(), -of_tap) if backward else (weight.data_ptr(), of_tap)
    )
    (rows, of_row), (count, of_column) = ((outputs, of_output), (inputs, of_input))[:: 1 if backward else -1]
    columns = _whole(count, library.columns_at_once())
    result = weight.new_empty(POINTS_OF_TILE, rows * columns + GAP)
    library.kernels_at_points(
        taps[0], of_row, of_column, taps[1], rows, count, result.data_ptr(), columns, torch.get_num_threads()
    )  # fmt: skip
    return result


def has_integers() -> bool:
    """Whether the processor has fast products of 16-bit integers."""
    return bool(_library().has_integers())


def rounded(kernel: Tensor, weight: Tensor) -> Integers:
    """What `at_points` gave for a kernel (C', C, 3, 3), in integers."""
    library = _library()
    outputs, inputs = weight.shape[0], max(weight.shape[1], library.lanes())
    columns, wider = _whole(outputs, library.columns_at_once()), _whole(outputs, library.columns_of_integers())
    numbers = kernel.new_empty(POINTS_OF_TILE, _whole(inputs, 2) * wider, dtype=torch.int16)
    scales = kernel.new_empty(POINTS_OF_TILE, -(-inputs // DEPTH), wider)
    library.kernels_in_integers(
        kernel.data_ptr(), inputs, columns, numbers.data_ptr(), scales.data_ptr(), wider, torch.get_num_threads()
    )
    return Integers(numbers, scales)


def convolve(
    x: Tensor,
    kernel: Tensor | Integers,
    bias: Tensor | None,
    outputs: Sequence[Output],
    above: int = 0,
    more: Tensor | None = None,
    replicated: bool = False,
) -> None:
    """See `winograd_matrices.convolve`."""
    library, threads = _library(), torch.get_num_threads()
    result = outputs[0].to
    if more is not None and min(x.shape[1], more.shape[1]) < library.lanes():
        x, more = torch.cat([x, more], dim=1), None
    x, bias = _wide(x), None if bias is None else with_vector(bias)
    rows, count = x.shape[1] + (0 if more is None else more.shape[1]), sum(output.to.shape[1] for output in outputs)
    factor = factor_of(kernel, bias, count)
    shape, shape_of_result = _shape(x, replicated), _shape(result)
    tiles = len(result) * shape_of_result.down * shape_of_result.across
    most = _tiles_at_once(tiles, TILES if rows * factor.columns < WIDE else TILES_IF_WIDE, threads)
    each = library.room_of_each(most, rows, factor.columns)
    room = torch.empty(threads * each)
    others = (None, shape, _Shape()) if more is None else (more.data_ptr(), shape, _shape(more, replicated))
    library.convolve(
        _Images(x.data_ptr(), *others, above), factor, (_Output * len(outputs))(*map(_output, outputs)), len(outputs),
        shape_of_result, tiles, most, room.data_ptr(), each, threads,
    )  # fmt: skip


def with_vector(bias: Tensor) -> Tensor:
    """A bias with as many values behind it as kernels in C may read there."""
    return F.pad(bias.detach().float(), (0, _library().lanes()))


def factor_of(kernel: Tensor | Integers, bias: Tensor | None, outputs: int) -> Factor:
    """What kernels in C multiply by.

    Args:
        kernel: at the points, of so many outputs.
        bias: from `with_vector`; both must live as long as the result is used.
        outputs: number of channels.
    """
    numbers, scales = kernel if isinstance(kernel, Integers) else (kernel, None)
    columns = _whole(outputs, _library().columns_at_once() if scales is None else _library().columns_of_integers())
    pointers = (None if each is None else each.data_ptr() for each in (numbers, scales, bias))
    return Factor(*pointers, columns)


def correlate(x: Tensor, grad: Tensor) -> Tensor:
    """See `winograd_matrices.correlate`."""
    library, threads = _library(), torch.get_num_threads()
    inputs, outputs = x.shape[1], grad.shape[1]
    x, grad = _wide(x), _wide(grad)
    shape, shape_of_grad = _shape(x), _shape(grad)
    rows, columns = (
        _whole(shape.channels, library.rows_at_once()),
        _whole(shape_of_grad.channels, library.columns_at_once()),
    )
    tiles = len(x) * shape.down * shape.across
    widest = max(shape.channels, shape_of_grad.channels)
    if rows * columns <= NARROW:
        most = min(tiles, TILES_OF_SUM)
        totals = torch.zeros(threads, POINTS_OF_TILE, rows, columns)
        each = POINTS_OF_TILE * (most * (shape.channels + columns) + 2 * GAP + widest) + LINES
        room = torch.empty(threads * each)
        library.correlate(
            x.data_ptr(), shape, grad.data_ptr(), shape_of_grad, tiles, most, totals.data_ptr(), rows, columns,
            room.data_ptr(), each, threads,
        )  # fmt: skip
        total = totals.sum(0)
    else:
        most = min(tiles, threads * (TILES_OF_SUM if rows * columns < WIDE else TILES_OF_SUM_IF_WIDE))
        total = torch.zeros(POINTS_OF_TILE, rows, columns)
        each = POINTS_OF_TILE * widest + LINES
        room = torch.empty(POINTS_OF_TILE * (most * (shape.channels + columns) + 2 * GAP) + threads * each)
        library.correlate_together(
            x.data_ptr(), shape, grad.data_ptr(), shape_of_grad, tiles, most, total.data_ptr(), rows, columns,
            room.data_ptr(), threads,
        )  # fmt: skip
    return from_points(total)[:outputs, :inputs]


def _wide(x: Tensor) -> Tensor:
    """A map with zeros for further channels up to one vector, if it has fewer."""
    missing = _library().lanes() - x.shape[1]
    return x if missing <= 0 else F.pad(x, (0, 0, 0, 0, 0, missing)).contiguous(memory_format=torch.channels_last)


def _tiles_at_once(tiles: int, most: int, threads: int) -> int:
    """How many tiles a thread takes at a time: at most that many, and so that all threads end together."""
    step = _library().rows_at_once()

    def cost(count: int) -> int:  # in tiles, of the thread that has most to do
        times = -(-tiles // (count * threads))
        return min(times * count, tiles) + times * COST_OF_TILES

    return min(range(_whole(most, step), 0, -step), key=cost)


def _whole(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _shape(x: Tensor, replicated: bool = False) -> _Shape:
    _, channels, height, width = x.shape
    half = x.dtype == torch.bfloat16
    return _Shape(height, width, channels, -(-height // TILE), -(-width // TILE), half, replicated)


def _output(output: Output) -> _Output:
    to, added = output.to, output.added
    return _Output(_map(to), _Map() if added is None else _map(added), to.shape[1], output.relu, output.slope)


def _map(x: Tensor) -> _Map:
    return _Map(x.data_ptr(), x.stride(0), x.stride(2), x.stride(3))


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.kernels_at_points.argtypes = [pointer, *[integer] * 5, pointer, integer, number]
    library.convolve.argtypes = [
        _Images, Factor, ctypes.POINTER(_Output), integer, _Shape, integer, integer, pointer,
        integer, number,
    ]  # fmt: skip
    library.room_of_each.argtypes = [integer, integer, integer]
    library.kernels_in_integers.argtypes = [pointer, integer, integer, pointer, pointer, integer, number]
    sums = [pointer, _Shape, pointer, _Shape, integer, integer, pointer, integer, integer, pointer]
    library.correlate.argtypes = [*sums, integer, number]
    library.correlate_together.argtypes = [*sums, number]
    for name in ("kernels_at_points", "kernels_in_integers", "convolve", "correlate", "correlate_together"):
        getattr(library, name).restype = None
    for name in ("lanes", "columns_at_once", "columns_of_integers", "rows_at_once", "room_of_each"):
        getattr(library, name).restype = integer
    library.has_integers.restype = number
    return library
