"""The hyperbolic tangent, for training on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llie.ops.parts import as_graph


def tanh(x: Tensor) -> Tensor:
    """`x.tanh()`; in training on CPUs as 2 sigmoid(2 x) - 1, correct to 1e-7.

    PyTorch computes tanh by MKL, which on processors other than Intel's takes six times as long as a sigmoid.
    """
    exact = x.dtype in (torch.float32, torch.float64)  # a half-precision sigmoid is too coarse near 0
    if not (exact and x.device.type == "cpu" and x.requires_grad and torch.is_grad_enabled()) or as_graph():
        return x.tanh()
    result: Tensor = _Tanh.apply(x)
    return result


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        result = torch.mul(x, 2).sigmoid_().mul_(2).sub_(1)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        of_x: Tensor = torch.ops.aten.tanh_backward(grad, result)
        return of_x
