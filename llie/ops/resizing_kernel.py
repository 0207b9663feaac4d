"""Resizing by two, fused with a convolution, in C (`resize.c`): the forms of `resizing.py` for inference on CPUs."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor

from llie.ops.c_library import available, compiled_library, form_of_products
from llie.ops.parts import WHOLE, Ends, new_map

SOURCE = Path(__file__).with_name("resize.c")


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("height", "width", "channels", "outputs", "taps")]


def works(x: Tensor) -> bool:
    """Whether a map can be resized here: float32 or bfloat16, with a compiler."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and _compiles()


def halved(x: Tensor, weight: Tensor, down: Tensor, across: Tensor, rows: slice, slope: float = 1) -> Tensor:
    """Some rows of a map (B, C, H, W), resized to half the size, and convolved; then a PReLU.

    Args:
        x: the map; zeros are beyond its edges.
        weight: of the convolution, (C', C, 3, 3).
        down: for each row of the result, how far from row 2 i to row 2 i + 1 of the map it lies, (H / 2,).
        across: the same of columns, (W / 2,).
        rows: of the result.
        slope: of the PReLU.

    Returns:
        (B, C', rows, W / 2), channels last, in the type of x.
    """
    shape = _Shape(x.shape[2] // 2, x.shape[3] // 2, x.shape[1], len(weight), 3)
    dtype, form = x.dtype, form_of_products(x)
    x, weight = _pixels(x), weight.float().permute(2, 3, 0, 1).contiguous()
    down, across = down.float().contiguous(), across.float().contiguous()
    result = new_map((len(x), shape.outputs, rows.stop - rows.start, shape.width), x.dtype)
    _library().halved(
        x.data_ptr(), x.shape[2], weight.data_ptr(), down.data_ptr(), across.data_ptr(), slope, result.data_ptr(),
        shape, len(x), rows.start, rows.stop, form, torch.get_num_threads(),
    )  # fmt: skip
    return result.to(dtype)


def doubled(
    x: Tensor, skip: Tensor, weight: Tensor, slope: float, height: int | None = None, ends: Ends = WHOLE
) -> Tensor:
    """A map (B, C', H, W) resized to twice the size, plus a convolution of another map; then a PReLU.

    Args:
        x: the map, or some of its rows.
        skip: the other map, (B, C, 2 H, 2 W + k - 1), or its rows for those of the result.
        weight: of the convolution, (C', C, 1, k).
        slope: of the PReLU.
        height: of the map; that of x when None.
        ends: where the rows of x lie in the map; the result lacks two rows where they end within it.

    Returns:
        (B, C', 2 H, 2 W), or some rows of it, channels last, in the type of x.
    """
    shape = _Shape(height or x.shape[2], x.shape[3], skip.shape[1], x.shape[1], weight.shape[3])
    rows = ends.without(1, x.shape[2])
    first, stop = (2 * (ends.first + row) for row in (rows.start, rows.stop))
    dtype, x, skip, weight = x.dtype, _pixels(x), _pixels(skip), weight.float().permute(0, 2, 3, 1).contiguous()
    result = new_map((len(x), shape.outputs, stop - first, 2 * shape.width), x.dtype)
    _library().doubled(
        x.data_ptr(), ends.first, x.shape[2], skip.data_ptr(), weight.data_ptr(), slope, result.data_ptr(), shape,
        len(x), first, stop, torch.get_num_threads(),
    )  # fmt: skip
    return result.to(dtype)


def _pixels(x: Tensor) -> Tensor:
    return x.float().contiguous(memory_format=torch.channels_last)


@functools.cache
def _compiles() -> bool:
    return available(_library, "resizing")


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer, threads = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.halved.argtypes = [pointer, integer, *[pointer] * 3, ctypes.c_float, pointer, _Shape, *[integer] * 3]
    library.halved.argtypes += [ctypes.c_int, threads]
    library.doubled.argtypes = [pointer, integer, integer, pointer, pointer, ctypes.c_float, pointer, _Shape]
    library.doubled.argtypes += [*[integer] * 3, threads]
    library.halved.restype = library.doubled.restype = None
    return library
