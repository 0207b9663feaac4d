"""Pixel attention on a residual path in one step: for inference on CPUs, in C (`pixel_attention.c`)."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from llie.ops.c_library import available, compiled_library
from llie.ops.parts import WHOLE, Ends, new_map

SOURCE = Path(__file__).with_name("pixel_attention.c")


@functools.cache
def works() -> bool:
    """Whether there is a compiler for it."""
    return available(_library, "pixel attention")


class Attend:
    """Weights of the attention `a(z) = sigmoid(last relu(hidden z))` of each pixel; copies.

    Args:
        hidden: (C', C, 1, 1).
        bias: (C',).
        last: (1, C', 1, 1).
        last_bias: (1,).
    """

    def __init__(self, hidden: Tensor, bias: Tensor, last: Tensor, last_bias: Tensor):
        missing = -len(hidden) % _library().lanes()
        self.hidden = F.pad(hidden.detach()[:, :, 0, 0].T, (0, missing)).contiguous()
        self.bias, self.last = F.pad(bias.detach(), (0, missing)), F.pad(last.detach().flatten(), (0, missing))
        self.last_bias = float(last_bias)

    @staticmethod
    def fits(x: Tensor) -> bool:
        """Whether a map (B, C, H, W) can be computed by it."""
        in_float32 = x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
        return x.device.type == "cpu" and in_float32 and x.shape[1] % _library().lanes() == 0

    def __call__(self, x: Tensor, y: Tensor, factors: Tensor, ends: Ends = WHOLE) -> Tensor:
        """X + z a(z), where z is y times the factors.

        Args:
            x: (B, C, H, W), float32, like the others.
            y: the same shape.
            factors: (B, C, 1, 1).
            ends: which rows of an image these are; each is computed alone.

        Returns:
            (B, C, H, W), channels last; see `llie.ops.parts.new_map`.
        """
        library, threads = _library(), torch.get_num_threads()
        x, y = (each.contiguous(memory_format=torch.channels_last) for each in (x, y))
        factors = factors.flatten(1).contiguous()
        result = new_map(x.shape, x.dtype)
        batch, channels, height, width = x.shape
        weights = _Attention(
            self.hidden.data_ptr(), self.bias.data_ptr(), self.last.data_ptr(), self.last_bias, len(self.bias)
        )
        room = torch.empty(threads * library.room_of_each(channels, len(self.bias)))
        library.attend(
            x.data_ptr(), y.data_ptr(), factors.data_ptr(), batch, height * width, channels, weights,
            result.data_ptr(), room.data_ptr(), threads,
        )  # fmt: skip
        return result


class _Attention(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("hidden", "bias", "last")),
        ("last_bias", ctypes.c_float), ("columns", ctypes.c_int64),
    ]  # fmt: skip


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.attend.argtypes = [
        pointer, pointer, pointer, integer, integer, integer, _Attention, pointer, pointer, ctypes.c_int,
    ]  # fmt: skip
    library.attend.restype = None
    library.room_of_each.argtypes = [integer, integer]
    library.room_of_each.restype = library.lanes.restype = integer
    return library
