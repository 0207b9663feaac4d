"""The form of deformable convolutions in C, `deform_conv.c`, for inference on CPUs; see `deform_conv.py`."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from llie.ops.c_library import available, compiled_library
from llie.ops.parts import watched

SOURCE = Path(__file__).with_name("deform_conv.c")


class _Map(ctypes.Structure):
    _fields_ = [
        ("values", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "channels")),
    ]


class _Field(ctypes.Structure):
    _fields_ = [
        ("values", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("image", "channel", "row", "pixel")),
    ]


class _Kernel(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("values", "bias")),
        *((name, ctypes.c_int64) for name in ("k", "stride", "padding", "dilation", "columns")),
    ]


def fits(x: Tensor) -> bool:
    """Whether a convolution of x (B, C, H, W) can be computed in C."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or watched():
        return False
    return works() and x.shape[1] % _library().lanes() == 0


@functools.cache
def works() -> bool:
    """Whether there is a compiler for it."""
    return available(_library, "deformable convolutions")


def deform(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    mask: Tensor | None,
) -> Tensor:
    """See `llie.ops.deform_conv.deform_conv2d`; all in float32. The result is channels last."""
    library, threads = _library(), torch.get_num_threads()
    x = x.contiguous(memory_format=torch.channels_last)
    outputs, size = len(weight), offset.shape[2:]
    rows = weight.permute(2, 3, 1, 0).flatten(0, 2)  # (k k C, outputs)
    rows = F.pad(rows, (0, -outputs % library.lanes()))
    panels = torch.cat([columns.reshape(-1) for columns in rows.split(library.columns_of_panel(), dim=1)])
    bias = None if bias is None else bias.contiguous()
    kernel = _Kernel(
        panels.data_ptr(), None if bias is None else bias.data_ptr(), weight.shape[-1], stride, padding, dilation,
        rows.shape[1],
    )  # fmt: skip
    image = _Map(x.data_ptr(), len(x), *x.shape[2:], x.shape[1])
    result = torch.empty(len(x), *size, outputs)
    room = torch.empty(threads * library.room_of_each(image, kernel))
    library.deform(
        image, _field(offset), _Field() if mask is None else _field(mask), kernel, result.data_ptr(), *size, outputs,
        room.data_ptr(), threads,
    )  # fmt: skip
    return result.permute(0, 3, 1, 2)


def _field(values: Tensor) -> _Field:
    return _Field(values.data_ptr(), *values.stride())


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.deform.argtypes = [
        _Map, _Field, _Field, _Kernel, pointer, integer, integer, integer, pointer, ctypes.c_int,
    ]  # fmt: skip
    library.deform.restype = None
    library.room_of_each.argtypes = [_Map, _Kernel]
    for name in ("lanes", "columns_of_panel", "room_of_each"):
        getattr(library, name).restype = integer
    return library
