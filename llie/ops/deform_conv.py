"""Modulated deformable convolution (DCNv2) without a compiled extension, exact on CPU and GPU.

Source: "Deformable ConvNets v2: More Deformable, Better Results", CVPR 2019, https://arxiv.org/abs/1811.11168.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.errors import UserError
from llie.ops import deform_conv_kernel
from llie.ops.exporting import exporting
from llie.ops.integers import in_integers
from llie.ops.winograd import Conv3x3

# Rows and pixels of the result computed at a time, at most, so that their samples stay in the cache.
_ROWS, _PIXELS = 16, 2400


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    mask: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Compute `out[o, p] = b[o] + sum_{t, i} weight[o, i, t] mask_t(p) x[i](p + t + offset_t(p))`, x read bilinearly.

    Arguments and channels have the order of `torchvision.ops.deform_conv2d` and of DCNv2's CUDA operator: taps t row by
    row, and for each the vertical offset, then the horizontal one. Outside its borders, x is zero.

    Computed in float32 even under autocast; float64 stays float64.

    Args:
        x: (B, C, H, W).
        offset: (B, 2 k k, h, w), in pixels; h and w are the size of the result.
        weight: (C_out, C, k, k).
        bias: (C_out,).
        stride: of the convolution.
        padding: zeros on every side.
        dilation: distance between the taps.
        mask: (B, k k, h, w), factors on the values that the taps read; ones when None.
        backend: "torchvision"; "grid_sample", which on CPUs is several times faster, forward and backward, and
            differs by the rounding of coordinates (1e-4 of the largest value); "auto" takes it on CPUs only, or
            without gradients a kernel in C.

    Returns:
        (B, C_out, h, w), with the type of x.

    Raises:
        UserError: shapes do not fit, or the backend is unknown.
    """
    if backend not in ("auto", "torchvision", "grid_sample"):
        raise UserError(f"deform_conv2d: backend must be 'auto', 'torchvision' or 'grid_sample', not {backend!r}")
    _check(x, offset, weight, stride, padding, dilation, mask)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    with torch.autocast(x.device.type, enabled=False):
        out = _form(backend, x.to(dtype))(
            x.to(dtype),
            offset.to(dtype),
            weight.to(dtype),
            None if bias is None else bias.to(dtype),
            stride,
            padding,
            dilation,
            None if mask is None else mask.to(dtype),
        )
    return out.to(x.dtype)


class DeformConv2d(nn.Module):
    """Modulated deformable convolution that predicts its own offsets and mask; initially half a plain convolution.

    Parameter names and channel order are those of DCNv2's CUDA operator, so that its weights load.

    Args:
        in_channels: C.
        out_channels: C_out.
        kernel_size: k.
        stride: of the convolution.
        padding: zeros on every side; k // 2 when None.
        dilation: distance of the taps.

    Shapes: x (B, C, H, W) -> (B, C_out, h, w), as for `nn.Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
    ):
        super().__init__()
        padding = kernel_size // 2 if padding is None else padding
        self.stride, self.padding, self.dilation = stride, padding, dilation
        bound = 1 / math.sqrt(in_channels * kernel_size**2)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        outputs = 3 * kernel_size**2
        if (kernel_size, stride, padding, dilation) == (3, 1, 1, 1):
            self.conv_offset_mask: nn.Conv2d = Conv3x3(in_channels, outputs)
        else:
            self.conv_offset_mask = nn.Conv2d(in_channels, outputs, kernel_size, stride, padding, dilation)
        for parameter in self.conv_offset_mask.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        taps = self.weight.shape[-1] ** 2
        # Fewer digits cannot represent coordinates of large images.
        with torch.autocast(x.device.type, enabled=False), in_integers(False):
            offset, mask = self.conv_offset_mask(x.to(self.weight.dtype)).split([2 * taps, taps], 1)
            return deform_conv2d(
                x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask.sigmoid()
            )


def _form(backend: str, x: Tensor) -> Callable[..., Tensor]:
    if backend == "auto" and deform_conv_kernel.fits(x):
        return deform_conv_kernel.deform
    on_cpu = x.device.type == "cpu"
    return _by_grid_sample if backend == "grid_sample" or (backend == "auto" and on_cpu) else _by_torchvision


def _by_torchvision(x: Tensor, *arguments: Any) -> Tensor:
    from torchvision.ops import deform_conv2d as operator  # takes a second to import

    return operator(x, *arguments)


def _by_grid_sample(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    mask: Tensor | None,
) -> Tensor:
    height, width = x.shape[-2:]
    k = weight.shape[-1]
    matrix = weight.flatten(1)  # (C_out, C k k)
    tap = torch.arange(k, dtype=x.dtype, device=x.device) * dilation - padding
    tap_y, tap_x = (t.reshape(-1, 1, 1) for t in torch.meshgrid(tap, tap, indexing="ij"))
    left = torch.arange(offset.shape[-1], dtype=x.dtype, device=x.device) * stride
    pieces = []
    # Without gradients, the result is written in place: one copy of the map less in memory.
    inplace = not (exporting() or torch.is_grad_enabled())
    out = x.new_empty(len(x), len(weight), *offset.shape[2:]) if inplace else x
    tops = torch.arange(offset.shape[2], dtype=x.dtype, device=x.device)[:, None] * stride
    step = max(1, min(_ROWS, _PIXELS // len(left)))
    strips = [slice(None)] if exporting() else [slice(i, i + step) for i in range(0, len(tops), step)]
    for rows in strips:
        dy, dx = offset[:, :, rows].unflatten(1, (-1, 2)).unbind(2)  # (B, k k, rows, w)
        top = tops[rows]
        # grid_sample's coordinates: -1 and 1 are the outer edges of the first and the last pixel.
        grid = torch.stack(
            ((left + tap_x + dx) * (2 / width) + (1 / width - 1), (top + tap_y + dy) * (2 / height) + (1 / height - 1)),
            dim=-1,
        )
        samples = F.grid_sample(x, grid.flatten(1, 2), "bilinear", "zeros", align_corners=False)
        samples = samples.unflatten(2, (k * k, -1))  # (B, C, k k, rows, w)
        if mask is not None:
            samples = samples * mask[:, None, :, rows]
        piece = (matrix @ samples.flatten(1, 2).flatten(2)).unflatten(2, (-1, offset.shape[-1]))
        piece = piece if bias is None else piece + bias[:, None, None]
        if inplace:
            out[:, :, rows] = piece
        else:
            pieces.append(piece)
    return out if inplace else torch.cat(pieces, 2)


def _check(
    x: Tensor, offset: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, mask: Tensor | None
) -> None:
    if x.dim() != 4 or weight.dim() != 4 or weight.shape[1] != x.shape[1] or weight.shape[2] != weight.shape[3]:
        raise UserError(
            "deform_conv2d: x must be (B, C, H, W) and weight (C_out, C, k, k), not "
            f"{tuple(x.shape)} and {tuple(weight.shape)}"
        )
    k = weight.shape[-1]
    size = [(side + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for side in x.shape[-2:]]
    if min(size) < 1:
        raise UserError(
            f"deform_conv2d: the map ({x.shape[2]}x{x.shape[3]}, padding {padding}) is smaller than the {k}x{k} kernel"
        )
    batch = x.shape[0]
    for name, tensor, count in (("offset", offset, 2 * k * k), ("mask", mask, k * k)):
        if tensor is not None and tuple(tensor.shape) != (batch, count, *size):
            raise UserError(
                f"deform_conv2d: {name} must have shape {(batch, count, *size)} for this x, not {tuple(tensor.shape)}"
            )
