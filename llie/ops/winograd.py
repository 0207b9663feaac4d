"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3), for CPUs.

Source: A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016. A tile of 4x4 results
needs 6x6 values of the image. Both the tile and the kernel are evaluated as polynomials at six points along each axis;
there, a convolution is a product: 36 products instead of 144 for each pair of channels. Over all channels and tiles,
these are 36 matrix products. Tiles go to the points and back in C (`winograd_kernel.py`), or, without a compiler, by
matrix products as well (`winograd_matrices.py`).
"""

from __future__ import annotations

import functools
import logging
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llie.ops import winograd_kernel, winograd_matrices
from llie.ops.parts import as_graph
from llie.ops.winograd_matrices import TILE, transformed

__all__ = ["Conv3x3", "convolve_3x3", "pays", "transformed", "winograd"]

log = logging.getLogger(__name__)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the size; see `convolve_3x3`.

    Args:
        in_channels: of the input.
        out_channels: of the result.
        bias: whether it has one.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        return convolve_3x3(x, self.weight, self.bias)


def convolve_3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=1)`; on CPUs by `winograd`, where that is faster."""
    if pays(x, weight):
        return winograd(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=1)


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether `winograd` is faster than `F.conv2d(x, weight, padding=1)`, and may replace it.

    It may not in half precision, or where operations become a graph, which should contain the plain ones.
    """
    if not (x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and type(x) in (Tensor, nn.Parameter)):
        return False
    if torch.is_autocast_enabled("cpu") or as_graph():
        return False
    tiles = len(x) * (x.shape[2] // TILE) * (x.shape[3] // TILE)
    # With few tiles, most of the work is to transform the kernel, which VGG does once for its frozen ones.
    least_tiles = 48 if weight.requires_grad else 16
    least_channels = 24 if _form(x.dtype) is winograd_kernel else 64 if torch.is_grad_enabled() else 128
    return weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= least_channels and tiles >= least_tiles


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None, kernel: Tensor | None = None) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=1)`, to about the rounding error of the direct form.

    Args:
        x: (B, C, H, W); channels last is best.
        weight: (C', C, 3, 3).
        bias: (C',).
        kernel: `transformed(weight)`, if it is known.

    Returns:
        (B, C', H, W), channels last.
    """
    result: Tensor = _Winograd.apply(x, weight, bias, transformed(weight) if kernel is None else kernel)
    return result


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Tensor) -> Tensor:
        # A frozen kernel needs no copy of the image.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight, kernel)
        return _convolve(x, kernel, bias, flipped=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, kernel = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        differentiable = torch.is_grad_enabled()  # these gradients have gradients
        if ctx.needs_input_grad[0]:
            if differentiable:
                of_x = winograd(grad, weight.flip(2, 3).transpose(0, 1))
            else:
                of_x = _convolve(grad, kernel.transpose(1, 2), None, flipped=True)
        if ctx.needs_input_grad[1]:
            of_weight = _plain_gradient(x, weight, grad) if differentiable else _correlate(x, grad)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None


def _plain_gradient(x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """That of the kernel, by PyTorch, which knows its gradient."""
    sides, none, only_weight = (1, 1), (0, 0), (False, True, False)
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, sides, sides, sides, False, none, 1, only_weight
    )
    return found[1]


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, flipped: bool) -> Tensor:
    """The convolution with a transformed kernel (36, C, C'), or with the kernel flipped along both axes."""
    batch, _, height, width = x.shape
    size = (batch, kernel.shape[2], height, width)
    result = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    _form(x.dtype).convolve(_channels_last(x), kernel, bias, flipped, result)
    return result


def _correlate(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the kernel (C', C, 3, 3), from the image and the gradient of the result."""
    channels, outputs = x.shape[1], grad.shape[1]
    total = x.new_zeros(36, channels, outputs)
    _form(x.dtype).correlate(_channels_last(x), _channels_last(grad), total)
    weight = torch.mm(winograd_matrices.matrices(x.dtype).kernel.T, total.view(36, -1))
    return weight.view(3, 3, channels, outputs).permute(3, 2, 0, 1)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _form(dtype: torch.dtype) -> ModuleType:
    return winograd_kernel if dtype == torch.float32 and _kernel_works() else winograd_matrices


@functools.cache
def _kernel_works() -> bool:
    try:
        winograd_kernel.prepare()
    except (OSError, RuntimeError) as error:
        log.info("convolutions: the C kernel is not available (%s)", str(error).splitlines()[0])
        return False
    return True
