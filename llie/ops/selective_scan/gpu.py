"""Triton kernels for CUDA: one program per image, group and channel; one parallel prefix scan per tile of positions.

The states of a tile stay in registers and only the state before each tile is stored, so there is no tensor of size
length x channels x states. Every direction is read through its own index map.
`TRITON_INTERPRET=1` runs the same kernels on the CPU (very slowly), for tests without a GPU.
"""

from __future__ import annotations

import math
import os
import sys

import torch
import triton
import triton.language as tl
from torch import Tensor

from llie.ops.constants import constant
from llie.ops.selective_scan import blocked
from llie.ops.selective_scan.core import BLOCK

SLOTS = 8  # channels whose gradients of B and C are stored separately at a time, in deterministic mode


@triton.jit
def _place(step, direction, length, width):
    """The pixel that a step visits; arbitrary beyond the end, where loads are masked."""
    step = tl.where(direction >= 2, length - 1 - step, step)
    height = length // width
    return tl.where(direction % 2 == 1, step % height * width + step // height, step).to(tl.int64)


@triton.jit
def _softplus(x):
    """Softplus and its slope, exact for tiny results: log(1 + e) = 2 atanh(e / (2 + e)), as a series."""
    e = tl.exp(-tl.abs(x))
    s = e / (e + 2.0)
    z = s * s
    series = 1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9 + z * (1 / 11 + z * (1 / 13)))))
    return tl.maximum(x, 0.0) + 2.0 * (s + s * z * series), tl.where(x < 0.0, e, 1.0) / (1.0 + e)


@triton.jit
def _step(at, inside, bias, SOFTPLUS: tl.constexpr):
    """Step sizes and their slopes; 0 beyond the end, which means decay 1 and input 0, so the state does not change."""
    d = tl.load(at, inside, 0.0) + bias
    slope = d * 0.0 + 1.0
    if SOFTPLUS:
        d, slope = _softplus(d)
    return tl.where(inside, d, 0.0), slope


@triton.jit
def _then(a1, x1, a2, x2):
    """Compose two affine steps x -> a x' + x; it only multiplies decays, so nothing can overflow."""
    return a1 * a2, a2 * x1 + x2


@triton.jit
def _forward_kernel(
    u, delta, rates, b, c, bias, y, initial, last, starts, directions,
    length, width, groups, channels, states,
    u_b, u_l, u_g, u_e, d_b, d_l, d_g, d_e, b_b, b_l, b_g, b_n, c_b, c_l, c_g, c_n, y_b, y_l, y_g, y_e,
    SOFTPLUS: tl.constexpr, KEEP: tl.constexpr, BEGUN: tl.constexpr, STATES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    channel, group, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    direction = tl.load(directions + group)
    n = tl.arange(0, STATES)
    row = (image * groups + group) * channels + channel
    offset = tl.load(bias + group * channels + channel)
    rate = tl.load(rates + (group * channels + channel) * states + n, n < states, 0.0)
    h = tl.zeros([STATES], tl.float32)
    if BEGUN:
        h = tl.load(initial + row * states + n, n < states, 0.0)
    for first in range(0, length, TILE):
        step = first + tl.arange(0, TILE)
        inside = step < length
        both = (n < states)[:, None] & inside[None, :]
        at = _place(step, direction, length, width)
        d, _ = _step(delta + image * d_b + at * d_l + group * d_g + channel * d_e, inside, offset, SOFTPLUS)
        x = tl.load(u + image * u_b + at * u_l + group * u_g + channel * u_e, inside, 0.0)
        bt = tl.load(b + image * b_b + at[None, :] * b_l + group * b_g + n[:, None] * b_n, both, 0.0)
        ct = tl.load(c + image * c_b + at[None, :] * c_l + group * c_g + n[:, None] * c_n, both, 0.0)
        if KEEP:
            tile = (first // TILE * tl.num_programs(2) + image) * groups + group
            tl.store(starts + (tile * states + n) * channels + channel, h, n < states)
        decays, inputs = tl.exp2(rate[:, None] * d[None, :]), (d * x)[None, :] * bt
        decays, inputs = tl.associative_scan((decays, inputs), 1, _then)
        hs = inputs + decays * h[:, None]
        tl.store(y + image * y_b + at * y_l + group * y_g + channel * y_e, tl.sum(ct * hs, 0), inside)
        h = tl.sum(tl.where(tl.arange(0, TILE)[None, :] == TILE - 1, hs, 0.0), 1)
    tl.store(last + row * states + n, h, n < states)


@triton.jit
def _backward_kernel(
    dy, u, delta, rates, b, c, bias, dlast, starts, directions, du, ddelta, da, db, dc,
    length, width, groups, channels, states, first_channel, slot,
    y_b, y_l, y_g, y_e, u_b, u_l, u_g, u_e, d_b, d_l, d_g, d_e, b_b, b_l, b_g, b_n, c_b, c_l, c_g, c_n,
    SOFTPLUS: tl.constexpr, STATES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    channel, group, image = first_channel + tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    direction = tl.load(directions + group)
    n, column = tl.arange(0, STATES), tl.arange(0, TILE)[None, :]
    row = (image * groups + group) * channels + channel
    offset = tl.load(bias + group * channels + channel)
    rate = tl.load(rates + (group * channels + channel) * states + n, n < states, 0.0)
    carry = tl.load(dlast + row * states + n, n < states, 0.0)
    rate_sum = tl.zeros([STATES], tl.float32)
    for tile in range((length + TILE - 1) // TILE - 1, -1, -1):
        step = tile * TILE + tl.arange(0, TILE)
        inside = step < length
        both = (n < states)[:, None] & inside[None, :]
        at = _place(step, direction, length, width)
        after = _place(step + 1, direction, length, width)
        steps = delta + image * d_b + group * d_g + channel * d_e
        d, slope = _step(steps + at * d_l, inside, offset, SOFTPLUS)
        d_after, _ = _step(steps + after * d_l, step + 1 < length, offset, SOFTPLUS)
        x = tl.load(u + image * u_b + at * u_l + group * u_g + channel * u_e, inside, 0.0)
        up = tl.load(dy + image * y_b + at * y_l + group * y_g + channel * y_e, inside, 0.0)
        bt = tl.load(b + image * b_b + at[None, :] * b_l + group * b_g + n[:, None] * b_n, both, 0.0)
        ct = tl.load(c + image * c_b + at[None, :] * c_l + group * c_g + n[:, None] * c_n, both, 0.0)
        start = tl.load(
            starts + (((tile * tl.num_programs(2) + image) * groups + group) * states + n) * channels + channel,
            n < states, 0.0,
        )  # fmt: skip
        # The state before each position: the scan of the preceding steps, from the start of the tile.
        earlier = inside & (step > tile * TILE)
        before = _place(step - 1, direction, length, width)
        d_before, _ = _step(steps + before * d_l, earlier, offset, SOFTPLUS)
        x_before = tl.load(u + image * u_b + before * u_l + group * u_g + channel * u_e, earlier, 0.0)
        bt_at = b + image * b_b + before[None, :] * b_l + group * b_g + n[:, None] * b_n
        bt_before = tl.load(bt_at, (n < states)[:, None] & earlier[None, :], 0.0)
        decays, inputs = tl.exp2(rate[:, None] * d_before[None, :]), (d_before * x_before)[None, :] * bt_before
        decays, inputs = tl.associative_scan((decays, inputs), 1, _then)
        previous = inputs + decays * start[:, None]
        decay = tl.exp2(rate[:, None] * d[None, :])
        hs = decay * previous + (d * x)[None, :] * bt
        # The adjoint recurrence is the same scan from the end, with the decay of the next position.
        decays, inputs = tl.exp2(rate[:, None] * d_after[None, :]), ct * up[None, :]
        decays, inputs = tl.associative_scan((decays, inputs), 1, _then, reverse=True)
        grad = inputs + decays * carry[:, None]
        carry = tl.sum(tl.where(column == 0, grad, 0.0), 1)
        e = grad * decay * previous  # a product: hs minus the input would cancel
        from_input = tl.sum(grad * bt, 0)
        out = ((image * length + at) * groups + group) * channels + channel
        tl.store(du + out, d * from_input, inside)
        from_step = x * from_input + tl.sum(e * rate[:, None], 0) * 0.6931471805599453  # rates are A log2(e)
        tl.store(ddelta + out, from_step * slope, inside)
        rate_sum += tl.sum(e * d[None, :], 1)
        states_at = ((image * length + at[None, :]) * groups + group) * states + n[:, None]
        states_at += tl.program_id(0).to(tl.int64) * slot
        tl.atomic_add(db + states_at, grad * (d * x)[None, :], both)
        tl.atomic_add(dc + states_at, hs * up[None, :], both)
    tl.store(da + row * states + n, rate_sum, n < states)


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None, softplus: bool,
    directions: list[int], width: int, y: Tensor, last: Tensor, starts: Tensor, initial: Tensor | None = None,
) -> None:  # fmt: skip
    """Fill y, the last state and, where `starts` has room, the state before every block; begin with `initial` or 0."""
    (batch, length, groups, channels), states = delta.shape, A.shape[2]
    part = y if y.shape[2] == groups else torch.empty_like(delta)
    order = constant(directions, u, torch.long)
    _forward_kernel[channels, groups, batch](
        u, delta, _rates(A), B, C, _bias(bias, A), part, last if initial is None else initial, last, starts, order,
        length, width or length, groups, channels, states,
        *_strides(u, groups), *delta.stride(), *B.stride(), *C.stride(), *part.stride(),
        SOFTPLUS=softplus, KEEP=len(starts) > 0, BEGUN=initial is not None, STATES=triton.next_power_of_2(states),
        TILE=BLOCK, num_warps=_warps(states),
    )  # fmt: skip
    if part is not y:
        torch.sum(part, 2, keepdim=True, out=y)


def backward(
    dy: Tensor, dlast: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None,
    softplus: bool, directions: list[int], width: int, starts: Tensor,
    du: Tensor, ddelta: Tensor, dA: Tensor, dB: Tensor, dC: Tensor,
) -> None:  # fmt: skip
    """Fill the gradients of all inputs, given those of y and of the last state."""
    (batch, length, groups, channels), states = delta.shape, A.shape[2]
    order = constant(directions, u, torch.long)
    du_part, ddelta_part = u.new_empty(delta.shape), u.new_empty(delta.shape)
    da = u.new_empty(batch, *A.shape)
    # Channels add up in the same place in arbitrary order, so the last bit may differ from run to run.
    together, slots, slot = channels, 1, 0
    if torch.are_deterministic_algorithms_enabled():
        together, slots, slot = SLOTS, SLOTS, B.numel()
    dB.zero_()
    dC.zero_()
    for first in range(0, channels, together):
        db, dc = u.new_zeros(slots, *B.shape), u.new_zeros(slots, *C.shape)
        _backward_kernel[min(together, channels - first), groups, batch](
            dy, u, delta, _rates(A), B, C, _bias(bias, A), dlast.contiguous(), starts, order,
            du_part, ddelta_part, da, db, dc,
            length, width or length, groups, channels, states, first, slot,
            *_strides(dy, groups), *_strides(u, groups), *delta.stride(), *B.stride(), *C.stride(),
            SOFTPLUS=softplus, STATES=triton.next_power_of_2(states), TILE=BLOCK, num_warps=_warps(states),
        )  # fmt: skip
        dB += db.sum(0)
        dC += dc.sum(0)
    du.copy_(du_part if du.shape[2] == groups else du_part.sum(2, keepdim=True))
    ddelta.copy_(ddelta_part)
    dA.copy_(da.sum(0))


def _warps(states: int) -> int:
    """Warps per program: a thread then holds about sixteen of the states of a tile."""
    return min(max(triton.next_power_of_2(states) * BLOCK // 512, 1), 8)


def _rates(A: Tensor) -> Tensor:
    return (A / math.log(2)).contiguous()


def _bias(bias: Tensor | None, A: Tensor) -> Tensor:
    return A.new_zeros(A.shape[:2]) if bias is None else bias.contiguous()


def _strides(tensor: Tensor, groups: int) -> tuple[int, ...]:
    """Strides of u or dy; the stride of a single group, shared by all, is 0."""
    batch, length, group, channel = tensor.stride()
    return batch, length, group if tensor.shape[2] == groups else 0, channel


def prepare() -> None:
    """Compile for the current device, and compare with the plain form, before the first use.

    Raises:
        RuntimeError: there is no device, or the kernels do not run on it or give wrong results.
    """
    if _interpreted():
        return
    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device")
    try:
        right = agrees_with_plain_form("cuda")
    except Exception as error:  # compilers raise exceptions of their own classes
        raise RuntimeError(f"Triton's kernels do not run here: {error}") from error
    if not right:
        raise RuntimeError("Triton's kernels give wrong results here")


def agrees_with_plain_form(device: str, batch: int = 2, channels: int = 3) -> bool:
    """Whether a small scan in four directions equals the plain form, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    height, width, states = 7, 9, 16
    length, directions = height * width, [0, 1, 2, 3]
    shapes = [(batch, length, 1, channels), (batch, length, 4, channels), (4, channels, states)]
    shapes += [(batch, length, 4, states), (batch, length, 4, states), (4, channels)]
    u, delta, A, B, C, bias = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    A = -A.exp()
    results = []
    for backend in (sys.modules[__name__], blocked):
        y, last = torch.empty_like(u), u.new_empty(batch, 4, channels, states)
        starts = u.new_empty(-(-length // BLOCK), batch, 4, states, channels)
        backend.forward(u, delta, A, B, C, bias, True, directions, width, y, last, starts)
        gradients = [torch.empty_like(tensor) for tensor in (u, delta, A, B, C)]
        backend.backward(y, last, u, delta, A, B, C, bias, True, directions, width, starts, *gradients)
        results.append([y, last, *gradients])
    return all(
        torch.allclose(ours, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))
        for ours, plain in zip(*results, strict=True)
    )


def supports(u: Tensor) -> bool:
    """Float32 on CUDA, or anywhere under Triton's interpreter."""
    return u.dtype == torch.float32 and (u.is_cuda or _interpreted())


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
