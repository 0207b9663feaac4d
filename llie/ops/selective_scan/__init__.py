"""The selective scan of Mamba, exact, on any device, without a compiled extension.

`selective_scan` has the arguments and the result of `mamba_ssm`'s. There is one file per backend:
`blocked.py` (plain PyTorch), `cpu.py` with `scan.c` (C), `jit.py` (numba), `gpu.py` (Triton), `mamba.py` (mamba_ssm);
`backends.py` chooses one, `core.py` makes it a differentiable operator.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from llie.errors import UserError
from llie.ops.selective_scan import backends, mamba
from llie.ops.selective_scan.core import scan

__all__ = ["selective_scan"]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """A linear recurrence whose decay and input depend on the position (Gu & Dao, "Mamba", 2023, equation 2).

    With `delta` after bias and softplus, for every channel d of group g and state n:
    `h[l] = exp(delta[l] A[d, n]) h[l-1] + delta[l] B[g, n, l] u[l]`, `y[l] = sum_n C[g, n, l] h[l] + D[d] u[l]`.

    Computed in float32 for any input type and under autocast (float64 stays float64). The backward pass needs memory
    for one state per 32 positions. Differentiable once, in every tensor; a second derivative raises an error.

    Args:
        u: input, (batch, channels, length).
        delta: step sizes, (batch, channels, length); positive unless `delta_softplus`.
        A: decay rates, (channels, states), negative, float32 or float64.
        B: input projection, (batch, states, length) or (batch, groups, states, length).
        C: output projection, shaped like `B`.
        D: skip weight, (channels,).
        z: gate, (batch, channels, length); the result is multiplied by SiLU(z).
        delta_bias: added to `delta` in float32, (channels,).
        delta_softplus: apply softplus to `delta` (after the bias).
        return_last_state: also return h after the last position, (batch, channels, states).
        backend: "auto", "torch", "c", "numba", "triton" or "mamba_ssm"; "auto" uses the environment variable LLIE_SCAN
            or else the fastest.

    Returns:
        y, (batch, channels, length), with the type of u; with `return_last_state` also the last state.

    Raises:
        UserError: shapes, devices or types do not fit, A is not negative, or the backend is not available.
    """
    _check(u, delta, A, B, C, D, z, delta_bias)
    if B.dim() == 3:
        B, C = B.unsqueeze(1), C.unsqueeze(1)
    if mamba.wanted(backend, u, A, _plain):
        return mamba.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)

    dtype = torch.float64 if torch.float64 in (u.dtype, A.dtype) else torch.float32
    batch, channels, length = u.shape
    groups, states = B.shape[1:3]
    split = (groups, channels // groups)
    y, last = scan(
        u.to(dtype).unflatten(1, split).permute(0, 3, 1, 2),
        delta.to(dtype).unflatten(1, split).permute(0, 3, 1, 2),
        A.to(dtype).unflatten(0, split),
        B.to(dtype).permute(0, 3, 1, 2),
        C.to(dtype).permute(0, 3, 1, 2),
        None if delta_bias is None else delta_bias.to(dtype).unflatten(0, split),
        delta_softplus,
        backend=backend,
    )
    y = y.permute(0, 2, 3, 1).reshape(batch, channels, length)
    if D is not None:
        y = y + D.to(dtype)[:, None] * u.to(dtype)
    if z is not None:
        y = y * F.silu(z.to(dtype))
    y = y.to(u.dtype)
    return (y, last.reshape(batch, channels, states)) if return_last_state else y


_plain = functools.partial(selective_scan, backend="torch")


def _check(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, bias: Tensor | None
) -> None:
    if u.dim() != 3 or A.dim() != 2:
        raise UserError(f"selective_scan: u is (batch, channels, length) and A (channels, states), {_shapes(u=u, A=A)}")
    batch, channels, length = u.shape
    states = A.shape[1]
    if B.dim() not in (3, 4) or (B.dim() == 4 and (B.shape[1] < 1 or channels % B.shape[1])):
        raise UserError(
            "selective_scan: B is (batch, states, length) or (batch, groups, states, length), with groups that divide "
            f"the {channels} channels, {_shapes(B=B)}"
        )
    grouped = (batch, *B.shape[1:-2], states, length)
    expected = {
        "delta": (delta, (batch, channels, length)),
        "A": (A, (channels, states)),
        "B": (B, grouped),
        "C": (C, grouped),
        "D": (D, (channels,)),
        "z": (z, (batch, channels, length)),
        "delta_bias": (bias, (channels,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise UserError(
                f"selective_scan: {name} must have shape {shape} beside u, {_shapes(u=u, **{name: tensor})}"
            )
        if tensor.device != u.device:
            raise UserError(f"selective_scan: {name} is on {tensor.device} but u on {u.device}; move one")
        if not tensor.is_floating_point():
            raise UserError(f"selective_scan: {name} is {tensor.dtype}; it must be real floating point")
    if not u.is_floating_point():
        raise UserError(f"selective_scan: u is {u.dtype}; it must be real floating point")
    if A.dtype not in (torch.float32, torch.float64):
        raise UserError(f"selective_scan: A is {A.dtype}, too coarse for decays near 1; keep it in float32")
    # Reading a value would break a compiled or captured graph, so these skip the check.
    if not torch.compiler.is_compiling() and not backends.capturing(u) and not bool((A < 0).all()):
        raise UserError(
            "selective_scan: A must be negative everywhere (usually -exp(A_log)), else the state can overflow"
        )


def _shapes(**tensors: Tensor) -> str:
    return "not " + ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
