"""Linear layers for inference on CPUs, whose weights are packed once instead of at each call.

In float32 and bfloat16, oneDNN computes with them; in integers, where these are wanted, `linear.c`.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.ops import integers
from llie.ops.c_library import available, compiled_library
from llie.ops.integers import DEPTH, Integers
from llie.ops.parts import watched
from llie.ops.winograd import result_type, version

SOURCE = Path(__file__).with_name("linear.c")
LEAST = 32  # tokens, from which on it pays
LEAST_FEATURES = 64  # of input and result, from which on integers pay
TYPES = (torch.float32, torch.bfloat16)


class Linear(nn.Linear):
    """A linear layer, and ReLU, if wanted; `llie.ops.fusion.fuse` lets it keep packed weights, beside its own.

    Args:
        in_features: of the input.
        out_features: of the result.
        bias: whether it has one.
    """

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """(..., in_features) -> (..., out_features); then ReLU, if wanted."""
        packed = self._packed(x)
        if packed is None:
            y = super().forward(x)
            return F.relu(y, inplace=True) if relu else y
        return packed(x, relu)

    def fuse(self) -> None:
        """Keep packed weights from now on, one set for each precision that is used."""
        # Stored outside the module's attributes, so that copies and checkpoints do not contain it.
        object.__setattr__(self, "_kept", (self._state(), {}))

    def _packed(self, x: Tensor) -> _InType | _InIntegers | None:
        """The weights for an input, if there are any that are valid, and pay."""
        made_of, kept = self.__dict__.get("_kept", (None, {}))
        if made_of is None or self.training or torch.is_grad_enabled():
            return None
        dtype = result_type(x)
        if x.device.type != "cpu" or dtype not in TYPES or watched() or made_of != self._state():
            return None
        if x.numel() < LEAST * self.in_features:
            return None
        fits = min(self.in_features, self.out_features) >= LEAST_FEATURES and self.in_features % 2 == 0
        form: Any = functools.partial(_InType, dtype)
        key: Any = dtype
        if integers.wanted() and dtype == torch.float32 and fits and integers_are_fast():
            key, form = "integers", _InIntegers
        elif not _packs(dtype):
            return None
        if key not in kept:
            kept[key] = form(self.weight, self.bias)
        found: _InType | _InIntegers = kept[key]
        return found

    def _state(self) -> list[tuple[int, int]]:
        """A value that changes whenever a parameter is written to, replaced or moved."""
        return [version(parameter) for parameter in self.parameters()]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_kept"}


class _InType:
    """A layer whose weights oneDNN packed, in float32 or bfloat16."""

    def __init__(self, dtype: torch.dtype, weight: Tensor, bias: Tensor | None):
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype))
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.dtype = dtype

    def __call__(self, x: Tensor, relu: bool) -> Tensor:
        after = "relu" if relu else "none"
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, after, [], "")
        return y


class _InIntegers:
    """A layer whose products are those of integers."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.outputs, inputs = weight.shape
        panel = _library().columns_at_once()
        columns = F.pad(weight.detach().float(), (0, 0, 0, -self.outputs % panel))
        panels = columns.unflatten(0, (-1, panel)).transpose(1, 2).contiguous()
        numbers, scales = torch.empty(panels.numel(), dtype=torch.int16), torch.empty(-(-inputs // DEPTH), len(columns))
        _library().weight_in_integers(panels.data_ptr(), inputs, scales.shape[1], numbers.data_ptr(), scales.data_ptr())
        self.weight = Integers(numbers, scales)
        self.bias = None if bias is None else bias.detach().float()

    def __call__(self, x: Tensor, relu: bool) -> Tensor:
        tokens = x.contiguous()
        y = tokens.new_empty(*x.shape[:-1], self.outputs)
        numbers, scales = self.weight
        _library().linear(
            tokens.data_ptr(), x[..., 0].numel(), x.shape[-1], numbers.data_ptr(), scales.data_ptr(), scales.shape[1],
            None if self.bias is None else self.bias.data_ptr(), relu, y.data_ptr(), self.outputs,
            torch.get_num_threads(),
        )  # fmt: skip
        return y


@functools.cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether PyTorch has oneDNN's layers with packed weights in this type; they are not a part of its public API."""
    try:
        with torch.no_grad():
            y = _InType(dtype, torch.ones(8, 8), None)(torch.ones(1, 8), relu=True)
        return bool((y == 8).all())
    except (AttributeError, RuntimeError, TypeError):
        return False


@functools.cache
def integers_are_fast() -> bool:
    """Whether this processor has fast products of 16-bit integers, and there is a compiler."""
    return available(_library, "linear layers") and bool(_library().columns_at_once())


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.columns_at_once.restype = integer
    library.weight_in_integers.argtypes = [pointer, integer, integer, pointer, pointer]
    library.linear.argtypes = [
        pointer, integer, integer, pointer, pointer, integer, pointer, number, pointer, integer, number,
    ]  # fmt: skip
    library.weight_in_integers.restype = library.linear.restype = None
    return library
