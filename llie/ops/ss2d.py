"""The four-direction selective scan over an image (VMamba, Liu et al., NeurIPS 2024), fused and channels last.

The usual implementation makes four reordered copies of the image and of every projection, scans them, and reorders the
results. Here, projections, which are per pixel, are computed once, or by the kernel as it goes; the scan follows each
direction by index and adds the four results in place; and the four skip terms, which all belong to the same pixel,
become one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from llie.errors import UserError
from llie.ops.exporting import exporting
from llie.ops.selective_scan import backends
from llie.ops.selective_scan.core import scan, scan_image

DIRECTIONS: tuple[int, ...] = (0, 1, 2, 3)  # rows, columns, rows backwards, columns backwards

# Scanning all directions together saves steps; above this many step sizes (512 MiB), one at a time saves memory.
TOGETHER = 2**27


def ss2d(
    x: Tensor,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    backend: str = "auto",
) -> Tensor:
    """Sum of the selective scans of an image along rows and columns, forwards and backwards.

    Args:
        x: image, (batch, height, width, channels), preferably contiguous.
        x_proj: pixel -> low-rank step size, B and C, for each direction: (4, rank + 2 states, channels).
        dt_proj: low-rank step size -> step size, for each direction: (4, channels, rank).
        dt_bias: added to the step size before its softplus, (4, channels).
        A_log: the decay rates are -exp(A_log), (4, channels, states).
        D: skip weights, (4, channels).
        backend: see `llie.ops.selective_scan.selective_scan`.

    Returns:
        (batch, height, width, channels); float32, or float64 for a float64 `x`.

    Raises:
        UserError: shapes do not fit.
    """
    _check(x, x_proj, dt_proj, dt_bias, A_log, D)
    batch, height, width, channels = x.shape
    weights = (x_proj, dt_proj, dt_bias, -A_log.exp(), D.sum(0))
    if _without_projections(x, weights, backend):
        u, *floats = (t.float() for t in (x.flatten(1, 2).unsqueeze(2), *weights))
        return scan_image(u, *floats, DIRECTIONS, width, backend).reshape(x.shape)
    together = exporting() or batch * height * width * 4 * channels <= TOGETHER
    parts = [slice(0, 4)] if together else [slice(k, k + 1) for k in range(4)]

    def scanned(part: slice) -> Tensor:
        return _scan(x, x_proj[part], dt_proj[part], dt_bias[part], A_log[part], DIRECTIONS[part], backend)

    y = scanned(parts[0])
    for part in parts[1:]:
        y = y.add_(scanned(part))
    dtype = y.dtype
    y = torch.addcmul(y, x.flatten(1, 2).to(dtype).unsqueeze(2), D.to(dtype).sum(0))
    return y.reshape(batch, height, width, channels)


def _without_projections(x: Tensor, weights: Sequence[Tensor], backend: str) -> bool:
    """Whether a kernel computes step sizes, B and C itself: they take more memory than all else. Without gradients."""
    gradients = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *weights))
    plain = not exporting() and not torch.compiler.is_compiling() and x.dtype != torch.float64
    return plain and not gradients and x.numel() > 0 and hasattr(backends.choose(backend, x[:0].float()), "project")


def _scan(
    x: Tensor,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    directions: tuple[int, ...],
    backend: str,
) -> Tensor:
    """Sum over some directions, without the skip term: (batch, height * width, 1, channels)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    rank, states = dt_proj.shape[2], A_log.shape[2]
    # On CPUs, a 1x1 convolution computes this product faster than a linear layer.
    projected = F.conv2d(x.permute(0, 3, 1, 2), x_proj.flatten(0, 1)[:, :, None, None])
    projected = projected.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (len(directions), -1))
    low_rank, B, C = projected.split([rank, states, states], dim=3)
    delta = torch.einsum("blkr,ker->blke", low_rank, dt_proj)
    u = x.flatten(1, 2).unsqueeze(2)
    u, delta, B, C, A_log, dt_bias = (t.to(dtype) for t in (u, delta, B, C, A_log, dt_bias))
    return scan(u, delta, -A_log.exp(), B, C, dt_bias, True, directions, x.shape[2], backend)[0]


def _check(x: Tensor, x_proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A_log: Tensor, D: Tensor) -> None:
    if x.dim() != 4:
        raise UserError(f"ss2d: x must be (batch, height, width, channels), not {tuple(x.shape)}")
    channels = x.shape[3]
    rank, states = dt_proj.shape[-1], A_log.shape[-1]
    expected = {
        "x_proj": (x_proj, (4, rank + 2 * states, channels)),
        "dt_proj": (dt_proj, (4, channels, rank)),
        "dt_bias": (dt_bias, (4, channels)),
        "A_log": (A_log, (4, channels, states)),
        "D": (D, (4, channels)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise UserError(
                f"ss2d: {name} must have shape {shape} beside x {tuple(x.shape)}, not {tuple(tensor.shape)}"
            )
