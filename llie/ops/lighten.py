"""Lighten cross-attention of the HVI family for inference on CPUs, in C (`lighten.c`): whole blocks, row by row.

A block has many steps with few operations for each number. PyTorch takes each of them through the whole map, and waits
for memory; here, a row goes through all steps while it is in the cache:

1. `attention_sums`: both maps are normalised; queries of one and keys of the other (1x1, depthwise 3x3); their products
   and squares, summed over the pixels.
2. `lightened`: values (1x1, depthwise 3x3), mixed, and added to the map; the sum is normalised; the gated layer (1x1,
   depthwise 3x3; in both halves depthwise 3x3 and tanh; product; 1x1).
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from pathlib import Path

import torch
from torch import Tensor

from llie.ops.c_library import available, compiled_library, form_of_products
from llie.ops.parts import new_map

SOURCE = Path(__file__).with_name("lighten.c")
WEIGHTS = (
    *("norm", "norm_bias", "queries", "queries_local", "keys_values", "keys_values_local"),
    *("spread", "local", "left", "right", "gather"),
)


class _Area(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("top", "bottom", "left", "right")]


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("height", "width", "channels", "heads", "hidden", "form")),
        ("eps", ctypes.c_double),
    ]


class _Weights(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in WEIGHTS]


def works(x: Tensor) -> bool:
    """Whether blocks on this map can be computed here: float32 or bfloat16, with a compiler."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and _compiles()


def attention_sums(
    x: Tensor, other: Tensor, heads: int, rows: slice, columns: slice, weights: dict[str, Tensor], eps: float
) -> Tensor:
    """What some pixels add to the products of queries and keys, and to the squares of both.

    Args:
        x: (B, C, H, W), of which the queries are made.
        other: (B, C, H, W), of which the keys are made.
        heads: the channels are divided into.
        rows: those of the pixels.
        columns: those of the pixels.
        weights: of the block. "norm" and "norm_bias", (C,); 1x1 convolutions "queries" (C, C, 1, 1) and "keys_values"
            (2 C, C, 1, 1), and depthwise ones after them, "queries_local" and "keys_values_local"; of the gated layer,
            with h hidden channels, "spread" (2 h, C, 1, 1), "local" (2 h, 1, 3, 3), "left" and "right" (h, 1, 3, 3),
            and "gather" (C, h, 1, 1).
        eps: of the normalisation.

    Returns:
        (B, heads, c, c + 2), c = C / heads, float32; the last two columns are the squares of queries and keys.
    """
    images, channels, height, width = x.shape
    each = channels // heads
    area = _Area(rows.start, rows.stop, columns.start, columns.stop)
    shape = _Shape(height, width, channels, heads, 0, form_of_products(x), eps)
    x, other = _pixels(x), _pixels(other)
    kept = _kept(weights)
    result = torch.zeros(images, heads, each, each + 2, dtype=torch.float64)
    _library().attention_sums(
        x.data_ptr(), other.data_ptr(), result.data_ptr(), shape, images, area, _addresses(kept),
        torch.get_num_threads(),
    )  # fmt: skip
    return result.float()


def lightened(x: Tensor, other: Tensor, mix: Tensor, residual: bool, weights: dict[str, Tensor], eps: float) -> Tensor:
    """The rest of a block, once it is known how attention mixes the channels.

    Args:
        x: (B, C, H, W).
        other: (B, C, H, W), of which the values are made.
        mix: (B, C, C), how channels of the values become channels of the result.
        residual: whether the gated layer's input is added to its result.
        weights: as for `attention_sums`.
        eps: of the normalisation.

    Returns:
        (B, C, H, W), channels last, in the type of x.
    """
    images, channels, height, width = x.shape
    shape = _Shape(height, width, channels, 1, weights["gather"].shape[1], form_of_products(x), eps)
    dtype, x, other, mix = x.dtype, _pixels(x), _pixels(other), mix.float().contiguous()
    kept = _kept(weights)
    result = new_map(x.shape, x.dtype)
    _library().lightened(
        x.data_ptr(), other.data_ptr(), mix.data_ptr(), result.data_ptr(), shape, images, _addresses(kept),
        residual, torch.get_num_threads(),
    )  # fmt: skip
    return result.to(dtype)


class Lightened:
    """`lightened` of one image whose rows come in turn: what rows have in common is computed once.

    Args:
        shape: of the image's map, (1, C, H, W).
        residual: see `lightened`.
        weights: see there.
        eps: see there.
    """

    def __init__(self, shape: tuple[int, ...], residual: bool, weights: dict[str, Tensor], eps: float):
        self.shape, self.residual, self.weights, self.eps = shape, residual, weights, eps
        self._begun: int | None = None

    def __call__(self, x: Tensor, other: Tensor, mix: Tensor, rows: slice) -> Tensor:
        """Some rows of the result, after those of the call before.

        Args:
            x: the rows of its map that were not there before, to the third after those of the result.
            other: the same of the other map.
            mix: see `lightened`.
            rows: those of the result.
        """
        _, channels, height, width = self.shape
        shape = _Shape(height, width, channels, 1, self.weights["gather"].shape[1], form_of_products(x), self.eps)
        dtype, x, other, mix = x.dtype, _pixels(x), _pixels(other), mix.float().contiguous()
        if self._begun is None:
            self._begun = _library().lighten_begin(shape, torch.get_num_threads())
            weakref.finalize(self, _library().lighten_end, self._begun)
        kept = _kept(self.weights)
        result = new_map((1, channels, rows.stop - rows.start, width), x.dtype)
        _library().lighten_next(
            self._begun, rows.start, rows.stop, x.data_ptr(), other.data_ptr(), mix.data_ptr(), result.data_ptr(),
            shape, _addresses(kept), self.residual, torch.get_num_threads(),
        )  # fmt: skip
        return result.to(dtype)


def _pixels(x: Tensor) -> Tensor:
    return x.float().contiguous(memory_format=torch.channels_last)


def _kept(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.float().contiguous() for name, weight in weights.items()}


def _addresses(weights: dict[str, Tensor]) -> _Weights:
    return _Weights(*(weights[name].data_ptr() for name in WEIGHTS))


@functools.cache
def _compiles() -> bool:
    return available(_library, "attention")


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    weights = ctypes.POINTER(_Weights)
    library.attention_sums.argtypes = [*[pointer] * 3, _Shape, integer, _Area, weights, number]
    library.lightened.argtypes = [*[pointer] * 4, _Shape, integer, weights, number, number]
    library.attention_sums.restype = library.lightened.restype = None
    library.lighten_begin.argtypes, library.lighten_begin.restype = [_Shape, number], pointer
    library.lighten_next.argtypes = [pointer, integer, integer, *[pointer] * 4, _Shape, weights, number, number]
    library.lighten_end.argtypes = [pointer]
    library.lighten_next.restype = library.lighten_end.restype = None
    return library
