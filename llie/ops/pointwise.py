"""1x1 convolutions of concatenated maps, without the concatenation: for inference on CPUs, in C (`pointwise.c`)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from llie.ops.c_library import available, compiled_library

SOURCE = Path(__file__).with_name("pointwise.c")


class _Pixels(ctypes.Structure):
    _fields_ = [("values", ctypes.c_void_p), ("channels", ctypes.c_int64), ("apart", ctypes.c_int64)]


class Factor(ctypes.Structure):
    """`pointwise` of pointwise.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("kernel", "bias")] + [
        (name, ctypes.c_int64) for name in ("columns", "outputs")
    ]


@functools.cache
def works() -> bool:
    """Whether there is a compiler for it."""
    return available(_library, "1x1 convolutions")


class Pointwise:
    """`F.conv2d(torch.cat(maps, dim=1), weight, bias)` for maps in float32, in one step with additions.

    Args:
        weight: (C', C, 1, 1), of at least 8 outputs; its values are copied.
        bias: (C',), or None.
        channels: of each map; C together.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, channels: Sequence[int]):
        wide, panel = _library().columns_at_once(), _library().columns_of_panel()
        rows = weight.detach()[:, :, 0, 0].T
        rows = F.pad(rows, (0, -rows.shape[1] % wide))
        self.outputs, self.columns = len(weight), rows.shape[1]
        panels = [columns.reshape(-1) for each in rows.split(list(channels)) for columns in each.split(panel, dim=1)]
        self.kernel = torch.cat(panels)
        self.bias = rows.new_zeros(len(weight)) if bias is None else bias.detach().clone()

    def __call__(self, maps: Sequence[Tensor], added: Sequence[Tensor] = ()) -> Tensor:
        """The convolution, plus maps of the shape of the result.

        Args:
            maps: (B, C1, H, W), (B, C2, H, W), ..., in float32.
            added: (B, C', H, W) each, in float32.

        Returns:
            (B, C', H, W), channels last.
        """
        library, threads = _library(), torch.get_num_threads()
        maps, added = ([x.contiguous(memory_format=torch.channels_last) for x in each] for each in (maps, added))
        size = (len(maps[0]), self.outputs, *maps[0].shape[2:])
        pixels = size[0] * size[2] * size[3]
        if pixels < library.rows_at_once():
            raise ValueError(f"Pointwise: {pixels} pixels are less than {library.rows_at_once()}")
        result = torch.empty(size, memory_format=torch.channels_last)
        room = torch.empty(threads * library.rows_at_once() * self.columns)
        library.combine(
            self.factor, _pixels(maps), len(maps), _pixels(added), len(added), result.data_ptr(), pixels,
            room.data_ptr(), threads,
        )  # fmt: skip
        return result

    @property
    def factor(self) -> Factor:
        """For kernels in C, as long as this lives."""
        return Factor(self.kernel.data_ptr(), self.bias.data_ptr(), self.columns, self.outputs)


def _pixels(maps: Sequence[Tensor]) -> ctypes.Array[_Pixels]:
    return (_Pixels * len(maps))(*(_Pixels(x.data_ptr(), x.shape[1], x.shape[1]) for x in maps))


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    maps = ctypes.POINTER(_Pixels)
    library.combine.argtypes = [Factor, maps, integer, maps, integer, pointer, integer, pointer, ctypes.c_int]
    library.combine.restype = None
    for name in ("columns_of_panel", "columns_at_once", "rows_at_once"):
        getattr(library, name).restype = integer
    return library
