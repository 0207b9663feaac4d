"""Convolutions with large kernels and few outputs, for inference; on CPUs in C (`long_rows.c`)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from llie.ops import integers
from llie.ops.c_library import available, compiled_library
from llie.ops.integers import DEPTH, Integers
from llie.ops.parts import WHOLE, Ends, watched

SOURCE = Path(__file__).with_name("long_rows.c")


class RowsAsChannels:
    """A fast convolution of stride 1 with a large kernel and few outputs; libraries are only fast for many outputs.

    The k rows of the kernel become channels of one 1 x k convolution, which are then shifted by their rows and added.
    On CPUs it works in strips of rows that stay in the cache.

    Args:
        weight: (C', C, k, k).
        bias: (C',).
        padding: zeros on every side.
        strip: rows at a time.
    """

    def __init__(self, weight: Tensor, bias: Tensor, padding: int, strip: int = 32):
        outputs, _, self.k, _ = weight.shape
        self.columns = weight.permute(2, 0, 1, 3).flatten(0, 1)[:, :, None].contiguous()  # (k C', C, 1, k)
        self.outputs, self.bias, self.padding, self.strip = outputs, bias, padding, strip
        fits = weight.device.type == "cpu" and weight.shape[1] % 8 == 0 and padding == self.k // 2 and self.k % 2 == 1
        self.in_c = LongRow(self.columns) if fits and weight.dtype == torch.float32 and works() else None

    def __call__(self, x: Tensor, ends: Ends = WHOLE) -> Tensor:
        """The convolution."""
        rows = self.strip if x.device.type == "cpu" else x.shape[2]
        return self._added(map(self.terms, x.split(rows, 2)), len(x), x.shape[2], ends)

    def terms(self, x: Tensor, ends: Ends = WHOLE) -> Tensor:
        """What each row of x adds to the k rows around it: (B, C, H, W) -> (B, k C', H, W')."""
        if self.in_c and x.device.type == "cpu" and x.dtype == torch.float32 and _is_plain(x):
            return self.in_c(x)
        return F.conv2d(x, self.columns, padding=(0, self.padding))

    def add(self, terms: Tensor, ends: Ends = WHOLE) -> Tensor:
        """The convolution, from the terms of all rows."""
        if self.in_c and terms.dtype == torch.float32 and _is_plain(terms):
            return self._added_in_c(terms.contiguous(memory_format=torch.channels_last), ends)
        return self._added(terms.split(self.strip, 2), len(terms), terms.shape[2], ends)

    def _added(self, parts: Iterable[Tensor], batch: int, height: int, ends: Ends) -> Tensor:
        """The convolution, from the terms of parts of the rows."""
        k, total = self.k, None
        top = 0
        for part in parts:
            if total is None:
                total = self.bias.view(-1, 1, 1).repeat(batch, 1, height + k - 1, part.shape[3])
            for row, term in enumerate(part.split(self.outputs, 1)):
                total.narrow(2, top + k - 1 - row, term.shape[2]).add_(term)
            top += part.shape[2]
        assert total is not None
        above, below = (self.padding if end else 0 for end in (ends.top, ends.bottom))
        return total[:, :, k - 1 - above : height + below]

    def _added_in_c(self, terms: Tensor, ends: Ends) -> Tensor:
        """The same, from the terms of all rows, channels last."""
        batch, _, height, width = terms.shape
        above, below = (self.padding if end else 0 for end in (ends.top, ends.bottom))
        result = torch.empty(batch, self.outputs, height + above + below - self.k + 1, width)
        for image, to in zip(terms, result, strict=True):
            _library().add_rows(
                image.data_ptr(), height, width, self.k, self.outputs, -above, self.bias.data_ptr(), to.data_ptr(),
                to.shape[1], torch.get_num_threads(),
            )  # fmt: skip
        return result


@functools.cache
def works() -> bool:
    """Whether there is a compiler for it."""
    return available(_library, "convolutions with long kernels")


class LongRow:
    """`F.conv2d(x, weight, padding=(0, k // 2))` for a kernel of one row, in float32, without gradients.

    Args:
        weight: (C', C, 1, k), k odd, C a multiple of 8; its values are copied.
    """

    def __init__(self, weight: Tensor):
        wide, panel = _library().columns_at_once(), _library().columns_of_panel()
        self.outputs, _, _, self.taps = weight.shape
        rows = weight.detach()[:, :, 0].permute(2, 1, 0).flatten(0, 1)  # (k C, C')
        rows = F.pad(rows, (0, -self.outputs % wide))
        self.depth, self.columns = rows.shape
        self.kernel = torch.cat([columns.reshape(-1) for columns in rows.split(panel, dim=1)])

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W), channels last."""
        library, threads = _library(), torch.get_num_threads()
        batch, channels, height, width = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        result = torch.empty((batch, self.outputs, height, width), memory_format=torch.channels_last)
        wide = -(-width // library.rows_at_once()) * library.rows_at_once()
        each = (wide + self.taps) * channels + wide * (self.columns + 1)
        room = torch.empty(threads * each)
        rounded = self._integers if integers.wanted() and library.has_integers() else None
        library.convolve(
            x.data_ptr(), batch * height, width, channels, self.taps,
            self.kernel.data_ptr() if rounded is None else rounded.numbers.data_ptr(),
            None if rounded is None else rounded.scales.data_ptr(),
            self.columns, result.data_ptr(), self.outputs, room.data_ptr(), each, threads,
        )  # fmt: skip
        return result

    @functools.cached_property
    def _integers(self) -> Integers:
        numbers = torch.empty(len(self.kernel), dtype=torch.int16)
        scales = torch.empty(-(-self.depth // DEPTH), self.columns)
        _library().kernel_in_integers(
            self.kernel.data_ptr(), self.depth, self.columns, numbers.data_ptr(), scales.data_ptr()
        )
        return Integers(numbers, scales)


def _is_plain(x: Tensor) -> bool:
    """Whether operations on a tensor have no gradients and no autocast, and are neither recorded nor counted."""
    return not (watched() or type(x) is not Tensor or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.convolve.argtypes = [
        pointer, integer, integer, integer, integer, pointer, pointer, integer, pointer, integer, pointer, integer,
        number,
    ]  # fmt: skip
    library.add_rows.argtypes = [
        pointer, integer, integer, integer, integer, integer, pointer, pointer, integer, number,
    ]  # fmt: skip
    library.kernel_in_integers.argtypes = [pointer, integer, integer, pointer, pointer]
    library.convolve.restype = library.add_rows.restype = library.kernel_in_integers.restype = None
    for name in ("columns_of_panel", "columns_at_once", "rows_at_once"):
        getattr(library, name).restype = integer
    library.has_integers.restype = number
    return library
