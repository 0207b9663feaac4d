"""Count the multiply-accumulate operations (MACs) of a network, with PyTorch's own counter.

`torch.utils.flop_counter` counts products of matrices, convolutions and attention, two operations per MAC; everything
else (activations, norms, sums) is not counted, as usual in this field. Added here or beside the operator:

    selective scan          per state and position an exponential and two multiply-adds, 2.5 MACs (beside the operator)
    deformable convolution  as a convolution, and 4 MACs for each value that is read bilinearly
    region convolution      one kernel per pixel; on the CPU, where everything is counted, it computes just that
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

BILINEAR = 4  # MACs for a value that is read between four others


def count_macs(network: nn.Module, size: tuple[int, int] = (256, 256)) -> int:
    """MACs of one forward pass on an image of that size (height, width).

    Counted on the CPU, on the published computation: layers that are fused for inference count as if they were not.

    Args:
        network: in evaluation mode, on the CPU.
        size: of the image.
    """
    image = dark_image(size)
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    frozen = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad(), counter:  # a fused layer takes its faster form without gradients alone
            network(image)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return counter.get_total_flops() // 2


def dark_image(size: tuple[int, int]) -> torch.Tensor:
    """An image (1, 3, H, W), dark and noisy, always the same."""
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 0.2


def _formulas() -> dict[Any, Any]:
    import torchvision.ops  # noqa: F401 - registers the operator

    return {
        torch.ops.torchvision.deform_conv2d: _deform_conv,
        torch.ops.aten.grid_sampler_2d: _grid_sample,
    }


def _grid_sample(x: Any, grid: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Shapes: x (B, C, H, W), grid (B, h, w, 2)."""
    return 2 * BILINEAR * x[0] * x[1] * grid[1] * grid[2]


def _deform_conv(x: Any, weight: Any, offset: Any, *_: Any, **__: Any) -> int:
    """Shapes: x (B, C, H, W), weight (C_out, C, k, k), offset (B, 2 k k, h, w)."""
    taps, pixels = math.prod(weight[2:]), offset[0] * offset[2] * offset[3]
    return 2 * pixels * taps * x[1] * (weight[0] + BILINEAR)
