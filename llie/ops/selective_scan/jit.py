"""The algorithm of `scan.c` in numba, for machines without a C compiler: `pip install llie[fast]`.

The first call compiles, which takes seconds; numba caches the result beside this file or in the user's cache folder.
"""

# numba's types for compiled functions do not match how they are called.
# mypy: disable-error-code="call-arg"

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic
from torch import Tensor

from llie.ops.selective_scan.core import BLOCK, positions

LANES = 16  # channels per vector; the innermost loops run over them
LN2 = np.float32(math.log(2))
# Fused multiply-add only: reordering, or assuming that there is no NaN, would change results.
SETTINGS: Any = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


@intrinsic
def _scale(typingctx, p, n):
    """The bits of p plus those of n shifted into the exponent; numba has no Python form of this."""

    def generate(context, builder, signature, arguments):
        whole, single = ir.IntType(32), ir.FloatType()
        mantissa, exponent = (builder.bitcast(value, whole) for value in arguments)
        return builder.bitcast(builder.add(mantissa, builder.shl(exponent, whole(23))), single)

    return types.float32(types.float32, types.float32), generate


@njit(inline="always", **SETTINGS)
def _exp2(x):
    """2^x for x <= 0: the integer part goes into the exponent, a minimax polynomial computes the rest."""
    x = np.float32(-126.0) if x < np.float32(-126.0) else x
    shifted = x + np.float32(12582912.0)  # 1.5 * 2^23: rounds to whole numbers
    f = x - (shifted - np.float32(12582912.0))
    p = f * np.float32(1.326472712e-3) + np.float32(9.671512645e-3)
    p = p * f + np.float32(5.550733743e-2)
    p = p * f + np.float32(2.402224209e-1)
    p = p * f + np.float32(6.931469776e-1)
    p = p * f + np.float32(1.0)
    return _scale(p, shifted)


@njit(inline="always", **SETTINGS)
def _softplus(x):
    """Softplus and its slope, exact for tiny results: log(1 + e) = 2 atanh(e / (2 + e)), as a series."""
    e = _exp2(np.float32(-1.44269504) * abs(x))
    s = e / (e + np.float32(2.0))
    z = s * s
    series = z * np.float32(1 / 13) + np.float32(1 / 11)
    series = series * z + np.float32(1 / 9)
    series = series * z + np.float32(1 / 7)
    series = series * z + np.float32(1 / 5)
    series = series * z + np.float32(1 / 3)
    series = series * z + np.float32(1.0)
    slope = (e if x < 0 else np.float32(1.0)) / (np.float32(1.0) + e)
    return (x if x > 0 else np.float32(0.0)) + np.float32(2.0) * s * series, slope


# One signature for every layout, compiled once, when this module is first used.
ARRAYS = {n: types.Array(types.float32, n, "A") for n in range(2, 6)}
PATHS = types.Array(types.int64, 2, "A")


@njit(
    [types.void(*[ARRAYS[n] for n in (4, 4, 3, 4, 4, 2)], types.boolean, PATHS, *[ARRAYS[n] for n in (4, 4, 5, 4)])],
    parallel=True,
    **SETTINGS,
)
def _forward(u, delta, rates, b, c, bias, softplus, at, y, last, starts, initial):
    batch, length, groups, channels = delta.shape
    states, vectors = rates.shape[1], rates.shape[2] // LANES
    shared = u.shape[2] != groups
    for work in prange(batch * vectors):
        image, lane = work // vectors, work % vectors * LANES
        lanes = min(LANES, channels - lane)
        h = np.empty((states, LANES), np.float32)
        a = np.empty((states, LANES), np.float32)
        d, du, out = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32), np.empty(LANES, np.float32)
        for g in range(groups):
            h[:] = 0
            if initial.shape[0]:
                for n in range(states):
                    for i in range(lanes):
                        h[n, i] = initial[image, g, lane + i, n]
            a[:] = rates[g, :, lane : lane + LANES]
            source = 0 if shared else g
            for t in range(length):
                p = at[g, t]
                if starts.shape[0] and t % BLOCK == 0:
                    for n in range(states):
                        for i in range(lanes):
                            starts[t // BLOCK, image, g, n, lane + i] = h[n, i]
                for i in range(lanes):
                    d[i] = delta[image, p, g, lane + i] + bias[g, lane + i]
                    if softplus:
                        d[i], _ = _softplus(d[i])
                    du[i] = d[i] * u[image, p, source, lane + i]
                out[:] = 0
                for n in range(states):
                    bn, cn = b[image, p, g, n], c[image, p, g, n]
                    for i in range(LANES):
                        h[n, i] = _exp2(d[i] * a[n, i]) * h[n, i] + du[i] * bn
                        out[i] += h[n, i] * cn
                for i in range(lanes):
                    if shared and g > 0:
                        y[image, p, source, lane + i] += out[i]
                    else:
                        y[image, p, source, lane + i] = out[i]
            for n in range(states):
                for i in range(lanes):
                    last[image, g, lane + i, n] = h[n, i]


@njit(
    [
        types.void(
            *[ARRAYS[n] for n in (4, 4, 4, 4, 3, 4, 4, 2)],
            types.boolean,
            PATHS,
            *[ARRAYS[n] for n in (5, 4, 4, 4, 5, 5)],
        )
    ],
    parallel=True,
    **SETTINGS,
)
def _backward(dy, dlast, u, delta, rates, b, c, bias, softplus, at, starts, du, ddelta, da, db, dc):
    batch, length, groups, channels = delta.shape
    states, vectors = rates.shape[1], rates.shape[2] // LANES
    shared = u.shape[2] != groups
    for work in prange(batch * vectors):
        image, vector = work // vectors, work % vectors
        lane = vector * LANES
        lanes = min(LANES, channels - lane)
        a, rate = np.empty((states, LANES), np.float32), np.empty((states, LANES), np.float32)
        carry = np.empty((states, LANES), np.float32)
        h = np.empty((BLOCK + 1, states, LANES), np.float32)
        decay = np.empty((BLOCK, states, LANES), np.float32)
        d, x = np.zeros((BLOCK, LANES), np.float32), np.zeros((BLOCK, LANES), np.float32)
        slope = np.ones((BLOCK, LANES), np.float32)
        up, total, power = np.zeros(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
        for g in range(groups):
            a[:] = rates[g, :, lane : lane + LANES]
            carry[:] = 0
            rate[:] = 0
            for i in range(lanes):
                carry[:, i] = dlast[image, g, lane + i]
            source = 0 if shared else g
            for block in range((length - 1) // BLOCK, -1, -1):
                size = min(BLOCK, length - block * BLOCK)
                h[0] = 0
                h[0, :, :lanes] = starts[block, image, g, :, lane : lane + lanes]
                for t in range(size):
                    p = at[g, block * BLOCK + t]
                    for i in range(lanes):
                        d[t, i], slope[t, i] = delta[image, p, g, lane + i] + bias[g, lane + i], np.float32(1.0)
                        if softplus:
                            d[t, i], slope[t, i] = _softplus(d[t, i])
                        x[t, i] = u[image, p, source, lane + i]
                    for n in range(states):
                        bn = b[image, p, g, n]
                        for i in range(LANES):
                            decay[t, n, i] = _exp2(d[t, i] * a[n, i])
                            h[t + 1, n, i] = decay[t, n, i] * h[t, n, i] + d[t, i] * x[t, i] * bn
                for t in range(size - 1, -1, -1):
                    p = at[g, block * BLOCK + t]
                    for i in range(lanes):
                        up[i] = dy[image, p, source, lane + i]
                    total[:] = 0
                    power[:] = 0
                    for n in range(states):
                        bn, cn = b[image, p, g, n], c[image, p, g, n]
                        db_sum, dc_sum = np.float32(0), np.float32(0)
                        for i in range(LANES):
                            grad = carry[n, i] + up[i] * cn
                            db_sum += grad * d[t, i] * x[t, i]
                            dc_sum += up[i] * h[t + 1, n, i]
                            total[i] += grad * bn
                            carry[n, i] = grad * decay[t, n, i]
                            e = carry[n, i] * h[t, n, i]
                            power[i] += e * a[n, i]
                            rate[n, i] += e * d[t, i]
                        db[vector, image, p, g, n] = db_sum
                        dc[vector, image, p, g, n] = dc_sum
                    for i in range(lanes):
                        ddelta[image, p, g, lane + i] = (x[t, i] * total[i] + power[i] * LN2) * slope[t, i]
                        if shared and g > 0:
                            du[image, p, source, lane + i] += d[t, i] * total[i]
                        else:
                            du[image, p, source, lane + i] = d[t, i] * total[i]
            da[image, g, :, lane : lane + LANES] = rate


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None, softplus: bool,
    directions: list[int], width: int, y: Tensor, last: Tensor, starts: Tensor, initial: Tensor | None = None,
) -> None:  # fmt: skip
    """Fill y, the last state and, where `starts` has room, the state before every block; begin with `initial` or 0."""
    _use_threads()
    bias = A.new_zeros(A.shape[:2]) if bias is None else bias
    initial = last[:0] if initial is None else initial
    given = (u, delta, _rates(A), B, C, bias)
    others = (_paths(directions, delta.shape[1], width), y, last, starts, initial)
    _forward(*(t.numpy() for t in given), softplus, *(t.numpy() for t in others))


def backward(
    dy: Tensor, dlast: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None,
    softplus: bool, directions: list[int], width: int, starts: Tensor,
    du: Tensor, ddelta: Tensor, dA: Tensor, dB: Tensor, dC: Tensor,
) -> None:  # fmt: skip
    """Fill the gradients of all inputs, given those of y and of the last state."""
    _use_threads()
    rates, paths = _rates(A), _paths(directions, delta.shape[1], width)
    # Every vector of channels fills its own part of these; they are added below.
    vectors = rates.shape[2] // LANES
    db, dc, da = u.new_empty(vectors, *B.shape), u.new_empty(vectors, *C.shape), u.new_empty(len(u), *rates.shape)
    bias = A.new_zeros(A.shape[:2]) if bias is None else bias
    given, filled = (dy, dlast, u, delta, rates, B, C, bias), (paths, starts, du, ddelta, da, db, dc)
    _backward(*(t.numpy() for t in given), softplus, *(t.numpy() for t in filled))
    torch.sum(db, 0, out=dB)
    torch.sum(dc, 0, out=dC)
    dA.copy_(da.sum(0)[:, :, : A.shape[1]].transpose(1, 2))


def _use_threads() -> None:
    """Use as many threads as PyTorch, or as many as numba has."""
    numba.set_num_threads(min(torch.get_num_threads(), vars(numba.config)["NUMBA_NUM_THREADS"]))


def _paths(directions: list[int], length: int, width: int) -> Tensor:
    return torch.stack([positions(k, length, width, torch.device("cpu")) for k in directions])


def _rates(A: Tensor) -> Tensor:
    groups, channels, states = A.shape
    rates = A.new_zeros(groups, states, -(-channels // LANES) * LANES)
    rates[:, :, :channels] = A.transpose(1, 2) / math.log(2)
    return rates


def prepare() -> None:
    """Start numba's threads before the first scan."""
    _use_threads()


def supports(u: Tensor) -> bool:
    """Float32 on the CPU."""
    return u.device.type == "cpu" and u.dtype == torch.float32
