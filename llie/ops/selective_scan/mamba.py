"""The CUDA kernel of the `mamba_ssm` package, used when it is installed and gives correct results here."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llie.errors import UserError
from llie.ops.selective_scan import backends

log = logging.getLogger(__name__)


def wanted(backend: str, u: Tensor, A: Tensor, reference: Callable[..., Any]) -> bool:
    """Whether this call uses mamba_ssm: requested by name, or chosen automatically on a GPU; see `usable`."""
    request = backends.requested(backend)
    if request == "mamba_ssm" and not (u.is_cuda and usable(reference)):
        raise UserError(
            "selective_scan: mamba_ssm was requested, but it is missing or does not work here, or u is not on a GPU"
        )
    fits = u.is_cuda and A.dtype == torch.float32 and u.dtype != torch.float64 and u.numel() > 0 and A.shape[1] <= 256
    return request in ("auto", "mamba_ssm") and fits and usable(reference)


def selective_scan(u: Tensor, *arguments: Any) -> Any:
    """The package's own function."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn(u, *arguments)


@functools.cache
def usable(reference: Callable[..., Any]) -> bool:
    """Whether mamba_ssm imports, runs and agrees with `reference` on a small case, forward and backward."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except (ImportError, RuntimeError, OSError):
        return False

    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 8, 100), (2, 8, 100), (8, 16), (2, 2, 16, 100), (2, 2, 16, 100)]
    values = [torch.randn(shape, generator=generator).cuda() for shape in shapes]
    values[2] = -values[2].exp()
    functions: list[Callable[..., Any]] = [selective_scan_fn, reference]
    results = []
    try:
        for function in functions:
            inputs = [value.clone().requires_grad_() for value in values]
            y = function(*inputs, delta_softplus=True)
            results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    except (RuntimeError, TypeError, AttributeError) as error:
        log.warning("selective scan: mamba_ssm does not run here (%s); not used", str(error).splitlines()[0])
        return False
    right = all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max())) for a, b in zip(*results, strict=True)
    )
    if right:
        log.info("selective scan on cuda: mamba_ssm")
    else:
        log.warning("selective scan: mamba_ssm gives wrong results here; not used")
    return right
