"""The HVI colour space: hue and saturation as a plane (H, V) that shrinks in the dark, and I = max(R, G, B).

Source: "HVI: A New Color Space for Low-light Image Enhancement", CVPR 2025, https://arxiv.org/abs/2502.20272.

Both directions are free of branches and of masked assignment: they neither wait for the GPU nor break a compiled or
exported graph. They compute in float32 even under autocast (their gradients reach 1e3 and more near grey) and in
float64 for float64. NaN in gives NaN out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = 1e-8


def rgb_to_hvi(rgb: Tensor, k: Tensor | float) -> Tensor:
    """RGB to HVI (equations 1 to 5 of the paper).

    Args:
        rgb: (B, 3, H, W) in [0, 1].
        k: exponent of the collapse in the dark, positive; a one-element tensor to learn it.

    Returns:
        (B, 3, H, W), channels H and V in [-1, 1], I in [0, 1]; float32, or float64 for float64.
    """
    with torch.autocast(rgb.device.type, enabled=False):
        rgb = _at_least_float32(rgb)
        # max(dim) hands its gradient to one channel; amax would split it over ties.
        high, low = rgb.max(dim=1).values, rgb.min(dim=1).values
        red, green, blue = rgb.unbind(1)
        chroma = high - low

        # Position on the hexagon, 1 per edge from red. Whole turns need no removal: only its sine and cosine are used.
        is_red, is_green = red == high, green == high
        across = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
        corner = torch.where(is_red, 0.0, torch.where(is_green, 2.0, 4.0))
        angle = (across / (chroma + EPS) + corner) * (math.pi / 3)

        # Black has no saturation, nor a gradient of it (which would be 1 / EPS).
        saturation = torch.where(high == 0, 0.0, chroma / (high + EPS))
        radius = _collapse(high, k) * saturation
        return torch.stack((radius * angle.cos(), radius * angle.sin(), high), dim=1)


def hvi_to_rgb(
    hvi: Tensor,
    k: Tensor | float,
    alpha_s: Tensor | float = 1.0,
    alpha_i: Tensor | float = 1.0,
    alpha_rgb: Tensor | float = 1.0,
) -> Tensor:
    """HVI to RGB (equations 6 to 9 of the paper), with factors on saturation, intensity and result.

    Args:
        hvi: (B, 3, H, W), of any range: it is clamped.
        k: the exponent that `rgb_to_hvi` was given.
        alpha_s: factor on the saturation, one number or (B, H, W).
        alpha_i: factor on the intensity, one number or (B, H, W).
        alpha_rgb: factor on the result, a number or anything that broadcasts with (B, 3, H, W).

    Returns:
        (B, 3, H, W) in [0, alpha_rgb]; float32, or float64 for float64.
    """
    with torch.autocast(hvi.device.type, enabled=False):
        hvi = _at_least_float32(hvi)
        value = alpha_i * hvi[:, 2].clamp(0, 1)
        plane = hvi[:, :2].clamp(-1, 1) / (_collapse(value, k) + EPS).unsqueeze(1)
        h, v = plane.clamp(-1, 1).unbind(1)
        saturation = (alpha_s * (h * h + v * v + EPS).sqrt()).clamp(0, 1)
        value = value.clamp(0, 1)

        # Each primary is full within 1 of its corner of the hexagon and gone beyond 2 (angles in corners, -3 to 3).
        angle = torch.atan2(v + EPS, h + EPS) * (3 / math.pi)
        distances = torch.stack((angle, angle - 2, angle + 2), dim=1).abs()
        presence = ((distances - 3).abs() - 1).clamp(0, 1)  # the distance to a corner is min(d, 6 - d) around the ring
        peak = value.unsqueeze(1)
        return alpha_rgb * (peak - peak * saturation.unsqueeze(1) * (1 - presence))


def _collapse(value: Tensor, k: Tensor | float) -> Tensor:
    """(sin(pi value / 2) + EPS) ** k; a value above 2, where the sine is negative, counts as black instead of NaN."""
    # exp of log, because the gradient of ** would compute both powers anew.
    return (k * ((value * (math.pi / 2)).sin().clamp(min=0) + EPS).log()).exp()


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
