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


class _Map(ctypes.Structure):
    _fields_ = [("values", ctypes.c_void_p), ("channels", ctypes.c_int64), ("apart", ctypes.c_int64)]


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
        room = torch.empty(threads * library.pixels_at_once() * self.columns)
        library.combine(
            _maps(maps), len(maps), self.kernel.data_ptr(), self.columns, self.bias.data_ptr(), _maps(added),
            len(added), result.data_ptr(), self.outputs, pixels, room.data_ptr(), threads,
        )  # fmt: skip
        return result


def _maps(maps: Sequence[Tensor]) -> ctypes.Array[_Map]:
    return (_Map * len(maps))(*(_Map(x.data_ptr(), x.shape[1], x.shape[1]) for x in maps))


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    maps = ctypes.POINTER(_Map)
    library.combine.argtypes = [
        maps, integer, pointer, integer, pointer, maps, integer, pointer, integer, integer, pointer, ctypes.c_int,
    ]  # fmt: skip
    library.combine.restype = None
    for name in ("columns_of_panel", "columns_at_once", "rows_at_once", "pixels_at_once"):
        getattr(library, name).restype = integer
    return library
