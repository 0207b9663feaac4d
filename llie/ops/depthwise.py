"""Depthwise convolutions and the like, for inference on CPUs, in C (`depthwise.c`): libraries are slow at them."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.ops.c_library import available, compiled_library
from llie.ops.parts import new_map, watched

SOURCE = Path(__file__).with_name("depthwise.c")
FEW = 3  # results of a convolution without groups, at most; with more, Winograd's is faster


class SmallConv(nn.Conv2d):
    """A convolution that keeps the size, with the kernel in C where it `suits`.

    Args:
        in_channels: of the input.
        out_channels: of the result.
        taps: width and height of the kernel, odd.
        groups: of channels.
        bias: whether it has one.
    """

    def __init__(self, in_channels: int, out_channels: int, taps: int, groups: int = 1, bias: bool = True):
        super().__init__(in_channels, out_channels, taps, padding=taps // 2, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        if suits(x, self.weight, self.groups):
            return convolve(x, self.weight, self.bias, 0, x.shape[2])
        return F.conv2d(x, self.weight, self.bias, padding=self.padding, groups=self.groups)


def suits(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether `convolve` may replace `F.conv2d(x, weight, padding=k // 2, groups=groups)`, without gradients.

    Kernels are 3x3 or 5x5. Each result depends on one or two channels, or there are few of them. It may not where
    operations become a graph, or are counted, which needs the plain ones.
    """
    if torch.is_grad_enabled() or watched() or x.device.type != "cpu" or type(x) not in (Tensor, nn.Parameter):
        return False
    if {x.dtype, weight.dtype} != {torch.float32} or torch.is_autocast_enabled("cpu") or not x.numel():
        return False
    outputs, inputs, *taps = weight.shape
    per_group = groups > 1 and inputs in (1, 2) and outputs == inputs * groups
    return taps in ([3, 3], [5, 5]) and (per_group or (groups == 1 and outputs <= FEW)) and _fits(x.shape[1])


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, above: int, height: int) -> Tensor:
    """Some rows of a convolution that `suits`.

    Args:
        x: (B, C, H, W): what these rows depend on, as far as it is within the map; channels last is best.
        weight: (C', 1 or 2, k, k), with as many channels as the input; or (C', C, k, k) with few.
        bias: (C',).
        above: how many rows of x are before the first one of the result, up to k // 2.
        height: rows of the result.

    Returns:
        (B, C', height, W), channels last; see `llie.ops.parts.new_map`.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, rows, width = x.shape
    outputs, inputs, taps, _ = weight.shape
    few = outputs <= FEW
    bias = None if bias is None else bias.contiguous()
    kernel = _of_each(weight) if few else _of_channels(weight)
    result = new_map((batch, outputs, height, width), x.dtype)
    problem = _Problem(
        x.data_ptr(), rows, width, channels, above, height, kernel.data_ptr(),
        None if bias is None else bias.data_ptr(), result.data_ptr(), outputs if few else 0,
    )  # fmt: skip
    _library().convolve(ctypes.byref(problem), batch, taps, inputs, torch.get_num_threads())
    return result


def _of_each(weight: Tensor) -> Tensor:
    """(C', C, k, k) -> (C', k, k, C)."""
    return weight.detach().permute(0, 2, 3, 1).contiguous()


def _of_channels(weight: Tensor) -> Tensor:
    """(C, inputs, k, k) -> (inputs, k, k, C); with two, first those for the channel itself, then for the other."""
    by_input = weight.detach().permute(1, 2, 3, 0)
    if len(by_input) == 1:
        return by_input.contiguous()
    own = by_input.unflatten(3, (-1, 2))
    same = torch.stack([own[0, ..., 0], own[1, ..., 1]], dim=3)
    other = torch.stack([own[1, ..., 0], own[0, ..., 1]], dim=3)
    return torch.stack([same, other]).flatten(3).contiguous()


class _Problem(ctypes.Structure):
    _fields_ = [
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("rows", "width", "channels", "above", "height")),
        *((name, ctypes.c_void_p) for name in ("kernel", "bias", "result")),
        ("outputs", ctypes.c_int64),
    ]


@functools.cache
def works() -> bool:
    """Whether there is a compiler for it."""
    return available(_library, "depthwise convolutions")


def _fits(channels: int) -> bool:
    return works() and channels % _library().lanes() == 0


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    library.convolve.argtypes = [ctypes.POINTER(_Problem), ctypes.c_int64, *[ctypes.c_int] * 3]
    library.convolve.restype = None
    library.lanes.restype = ctypes.c_int64
    return library
