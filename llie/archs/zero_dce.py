"""Zero-DCE: a tone curve for each pixel and channel, learned from dark photographs alone.

Guo et al., "Zero-Reference Deep Curve Estimation for Low-Light Image Enhancement", CVPR 2020,
https://doi.org/10.1109/CVPR42600.2020.00185. The losses that need no reference are in `llie/losses/zero_reference.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llie.archs.card import Card
from llie.errors import UserError
from llie.ops.tanh import tanh
from llie.ops.winograd import Conv3x3
from llie.registry import ARCH_REGISTRY


def apply_curves(x: Tensor, curves: Tensor) -> Tensor:
    """Apply quadratic curves one after the other: `y <- y + A (y^2 - y)` for each triple of maps A in `curves`.

    Negative maps brighten. With x in [0, 1] and maps in [-1, 1] the result stays in [0, 1].

    Args:
        x: (B, 3, H, W).
        curves: (B, 3 n, H, W), three maps (R, G, B) for each of n iterations.

    Returns:
        (B, 3, H, W).
    """
    for strength in curves.split(3, dim=1):
        x = torch.addcmul(x, strength, x * x - x)
    return x


def _detect(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    shapes = [tuple(state[f"e_conv{n}.weight"].shape) for n in range(1, 8) if f"e_conv{n}.weight" in state]
    if len(shapes) < 7 or shapes[0][1] != 3:
        return None
    return {"width": shapes[0][0], "iterations": shapes[6][0] // 3}


@ARCH_REGISTRY.register()
class ZeroDCE(nn.Module):
    """Seven convolutions with symmetric skip connections estimate the curves, which are then applied to the image.

    Its result at a pixel depends on the 15x15 pixels around it. The defaults are as published; parameter names are
    those of the official checkpoints.

    Args:
        width: channels of the hidden layers.
        iterations: number of curves, applied one after the other.

    Raises:
        UserError: an argument is less than 1.
    """

    card = Card(
        paper="Zero-Reference Deep Curve Estimation for Low-Light Image Enhancement, CVPR 2020",
        url="https://doi.org/10.1109/CVPR42600.2020.00185",
        detect=_detect,
    )

    def __init__(self, width: int = 32, iterations: int = 8):
        super().__init__()
        for name, value in (("width", width), ("iterations", iterations)):
            if value < 1:
                raise UserError(f"ZeroDCE: {name} must be at least 1, not {value}")
        inputs = (3, width, width, width, 2 * width, 2 * width, 2 * width)
        for number, channels in enumerate(inputs, 1):
            conv = Conv3x3(channels, 3 * iterations if number == 7 else width)
            nn.init.normal_(conv.weight, 0, 0.02)
            self.add_module(f"e_conv{number}", conv)

    def curves(self, x: Tensor) -> Tensor:
        """The curve maps (B, 3 iterations, H, W) in [-1, 1] of x (B, 3, H, W)."""
        conv1, conv2, conv3, conv4, conv5, conv6, conv7 = self.children()
        x = x.contiguous(memory_format=torch.channels_last)  # faster on CPUs for layers with few channels
        f1 = conv1(x, relu=True)
        f2 = conv2(f1, relu=True)
        f3 = conv3(f2, relu=True)
        f4 = conv4(f3, relu=True)
        f5 = conv5(f3, relu=True, more=f4)
        f6 = conv6(f2, relu=True, more=f5)
        return tanh(conv7(f1, more=f6))

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """X (B, 3, H, W) in [0, 1], any size -> the enhanced image, same shape; in training a dict, with "curves"."""
        curves = self.curves(x)
        out = apply_curves(x, curves)
        return {"out": out, "curves": curves} if self.training else out
