"""The HVI colour space: hue and saturation as a plane (H, V) that shrinks in the dark, and I = max(R, G, B).

Source: "HVI: A New Color Space for Low-light Image Enhancement", CVPR 2025, https://arxiv.org/abs/2502.20272.

Both directions have neither branches nor masked assignments, so they do not wait for the GPU and do not break compiled
or exported graphs. They compute in float32 even under autocast (gradients exceed 1e3 near grey), and in float64 for
float64. NaN in gives NaN out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import hardtanh as clamp  # its backward is one kernel, that of Tensor.clamp is five
from torch.nn.functional import relu

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
        # Sums over one-hot masks: exact, cheaper than max(dim), and the gradient goes to one of several equal channels.
        top = _first(rgb == rgb.detach().amax(dim=1, keepdim=True)).to(rgb.dtype)
        bottom = _first(rgb == rgb.detach().amin(dim=1, keepdim=True)).to(rgb.dtype)
        high, low = (rgb * top).sum(dim=1), (rgb * bottom).sum(dim=1)
        chroma = high - low

        # Position on the hexagon of hues: red at 0, green at 2, blue at 4, plus or minus up to 1.
        # Full turns need not be removed, because only the sine and cosine are used.
        across = ((rgb.roll(-1, dims=1) - rgb.roll(-2, dims=1)) * top).sum(dim=1)
        angle = (across / (chroma + EPS) + 2 * top[:, 1] + 4 * top[:, 2]) * (math.pi / 3)

        # The saturation of black is 0 without gradient (which would be 1 / EPS).
        saturation = chroma / (high + EPS) * (high.detach() != 0)
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
        hvi: (B, 3, H, W) with any range; it is clamped.
        k: the exponent given to `rgb_to_hvi`.
        alpha_s: factor on the saturation, one number or (B, H, W).
        alpha_i: factor on the intensity, one number or (B, H, W).
        alpha_rgb: factor on the result, a number or anything that broadcasts with (B, 3, H, W).

    Returns:
        (B, 3, H, W) in [0, alpha_rgb]; float32, or float64 for float64.
    """
    with torch.autocast(hvi.device.type, enabled=False):
        h, v, value = _at_least_float32(hvi).unbind(1)
        value = alpha_i * clamp(value, 0, 1)
        collapse = _collapse(value, k) + EPS
        h, v = clamp(clamp(h) / collapse), clamp(clamp(v) / collapse)
        saturation = clamp(alpha_s * (h * h + v * v + EPS).sqrt(), 0, 1)
        value = clamp(value, 0, 1)

        # A primary is 1 up to a distance of 1 from its corner of the hexagon, and 0 from 2 on; angles count corners.
        angle = torch.atan2(v + EPS, h + EPS) * (3 / math.pi)
        drop = value * saturation
        channels = [value - drop * clamp(2 - ((angle - corner).abs() - 3).abs(), 0, 1) for corner in (0, 2, -2)]
        return alpha_rgb * torch.stack(channels, dim=1)


def _collapse(value: Tensor, k: Tensor | float) -> Tensor:
    """(sin(pi value / 2) + EPS) ** k; a value above 2, where the sine is negative, counts as black instead of NaN."""
    # exp of log, because the backward pass of ** would compute both powers again.
    return (k * (relu((value * (math.pi / 2)).sin()) + EPS).log()).exp()


def _first(ties: Tensor) -> Tensor:
    """Keep only the first of the channels that are true at a pixel, (B, 3, H, W)."""
    a, b, c = ties.unbind(1)
    return torch.stack((a, b & ~a, c & ~(a | b)), dim=1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
