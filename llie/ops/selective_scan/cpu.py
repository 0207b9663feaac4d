"""The C kernel `scan.c` through ctypes: compiled once, at first use, into the user's cache; needs a C compiler."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from llie.ops.c_library import compiled_library

SOURCE = Path(__file__).with_name("scan.c")
LANES, CHUNK = 16, 4  # as in scan.c


class _Array(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("batch", "length", "group", "last"))]


class _Problem(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("batch", "length", "groups", "channels", "states", "width", "shared", "softplus")
        ),
        ("directions", ctypes.c_void_p),
        ("rates", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        *((name, _Array) for name in ("u", "delta", "b", "c")),
        ("rank", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("x_proj", ctypes.c_void_p),
        ("dt_proj", ctypes.c_void_p),
    ]


def prepare() -> None:
    """Compile and load the kernel; raises OSError or RuntimeError if that is not possible."""
    _library()


def supports(u: Tensor) -> bool:
    """Float32 on the CPU."""
    return u.device.type == "cpu" and u.dtype == torch.float32


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None, softplus: bool,
    directions: list[int], width: int, y: Tensor, last: Tensor, starts: Tensor, initial: Tensor | None = None,
) -> None:  # fmt: skip
    """Fill y, the last state and, where `starts` has room, the state before every block; begin with `initial` or 0."""
    problem, _keep = _problem(u, delta, A, B, C, bias, softplus, directions, width)
    saved = starts.data_ptr() if len(starts) else None
    threads, ranges = _shares(len(u), delta.shape[3])
    begin = None if initial is None else initial.transpose(2, 3).contiguous()
    end = last.new_empty(last.transpose(2, 3).shape)
    _check(
        _library().scan_forward(
            ctypes.byref(problem), _array(y), 0, None if begin is None else begin.data_ptr(), end.data_ptr(), saved,
            1, ranges, threads,
        )
    )  # fmt: skip
    last.copy_(end.transpose(2, 3))


def project(
    u: Tensor, x_proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A: Tensor, directions: Sequence[int], width: int,
    y: Tensor, state: Tensor,
) -> None:  # fmt: skip
    """Add results to y, and replace the state by the last one; see `core.project`."""
    problem, _keep = _projected(u, x_proj, dt_proj, dt_bias, A, directions, width)
    threads, ranges = _shares(len(u), u.shape[3])
    # Every range of channels needs the projections of all; directions do not, but each thread adds to a y of its own.
    parts = min(threads, len(A)) if len(u) < threads else 1
    ranges = min(ranges, -(-threads // parts))
    results = y.new_zeros(parts, *y.shape) if parts > 1 else y[None]
    _check(
        _library().scan_forward(
            ctypes.byref(problem), _array(results[0]), results.stride(0), state.data_ptr(), state.data_ptr(), None,
            parts, ranges, threads,
        )
    )  # fmt: skip
    for result in results if parts > 1 else ():
        y.add_(result)


def project_ends(
    u: Tensor, x_proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A: Tensor, directions: Sequence[int], state: Tensor,
    steps: Tensor, least: float,
) -> None:  # fmt: skip
    """See `core.project_ends`."""
    problem, _keep = _projected(u, x_proj, dt_proj, dt_bias, A, directions, 0)
    threads, ranges = _shares(len(u), u.shape[3])
    power = math.log2(least) if least else -math.inf
    _check(_library().scan_ends(ctypes.byref(problem), state.data_ptr(), steps.data_ptr(), power, ranges, threads))


def carry(rates: Tensor, steps: Tensor, state: Tensor, own: Tensor, swap: bool) -> None:
    """See `core.carry`."""
    pointers = (t.data_ptr() for t in (rates, steps, state, own))
    _library().scan_carry(*pointers, *state.shape, swap, torch.get_num_threads())


def backward(
    dy: Tensor, dlast: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None,
    softplus: bool, directions: list[int], width: int, starts: Tensor,
    du: Tensor, ddelta: Tensor, dA: Tensor, dB: Tensor, dC: Tensor,
) -> None:  # fmt: skip
    """Fill the gradients of all inputs, given those of y and of the last state."""
    problem, rates = _problem(u, delta, A, B, C, bias, softplus, directions, width)
    threads, ranges = _shares(len(u), delta.shape[3])
    # The gradients of B and C sum over channels, that of A over the batch: each share fills its own part, added below.
    db, dc = u.new_empty(ranges, *B.shape), u.new_empty(ranges, *C.shape)
    da = u.new_empty(len(u), *rates.shape)
    dlast = dlast.transpose(2, 3).contiguous()
    _check(
        _library().scan_backward(
            ctypes.byref(problem), _array(dy), _array(du), _array(ddelta), dlast.data_ptr(), starts.data_ptr(),
            db.data_ptr(), dc.data_ptr(), da.data_ptr(), ranges, threads,
        )
    )  # fmt: skip
    torch.sum(db, 0, out=dB)
    torch.sum(dc, 0, out=dC)
    dA.copy_(da.sum(0)[:, : A.shape[2], : A.shape[1]].transpose(1, 2))


def _problem(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None, softplus: bool,
    directions: list[int], width: int,
) -> tuple[_Problem, Tensor]:  # fmt: skip
    problem, rates = _common(u, A, bias, softplus, directions, width)
    problem.delta, problem.b, problem.c = _array(delta), _array(B), _array(C)
    return problem, rates


def _projected(
    u: Tensor, x_proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A: Tensor, directions: Sequence[int], width: int
) -> tuple[_Problem, Tensor]:
    problem, rates = _common(u, A, dt_bias, True, directions, width)
    groups, channels, states = A.shape
    rank, padded = dt_proj.shape[2], rates.shape[1]
    columns = _up(2 * padded + rank, LANES)
    low_rank, B, C = x_proj.transpose(1, 2).split([rank, states, states], 2)
    products = u.new_zeros(groups, channels, columns)
    products[:, :, :states], products[:, :, padded : padded + rank] = B, low_rank
    products[:, :, padded + rank : padded + rank + states] = C
    steps = u.new_zeros(groups, rank, rates.shape[2])
    steps[:, :, :channels] = dt_proj.transpose(1, 2)
    problem.rank, problem.columns = rank, columns
    problem.x_proj, problem.dt_proj = products.data_ptr(), steps.data_ptr()
    problem.keep += products, steps
    return problem, rates


def _common(
    u: Tensor, A: Tensor, bias: Tensor | None, softplus: bool, directions: Sequence[int], width: int
) -> tuple[_Problem, Tensor]:
    """What every problem contains, and the rates, to which it has only the address."""
    groups, channels, states = A.shape
    rates = u.new_zeros(groups, _up(states, CHUNK), _up(channels, LANES))
    rates[:, :states, :channels] = A.transpose(1, 2) / math.log(2)
    offset = u.new_zeros(groups, rates.shape[2])
    if bias is not None:
        offset[:, :channels] = bias
    order = (ctypes.c_int64 * groups)(*directions)
    problem = _Problem(
        u.shape[0], u.shape[1], groups, channels, states, width, u.shape[2] != groups, softplus,
        ctypes.addressof(order), rates.data_ptr(), offset.data_ptr(), _array(u),
    )  # fmt: skip
    problem.keep = order, offset  # the structure contains only their addresses
    return problem, rates


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _array(tensor: Tensor) -> _Array:
    return _Array(tensor.data_ptr(), *tensor.stride())


def _shares(batch: int, channels: int) -> tuple[int, int]:
    """Number of threads, and number of ranges of channels per image that gives work to every thread."""
    threads = torch.get_num_threads()
    return threads, min(-(-channels // LANES), -(-threads // batch))


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("selective scan: no memory for the kernel's buffers")


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.scan_forward.argtypes = [pointer, _Array, integer, *[pointer] * 3, integer, integer, ctypes.c_int]
    library.scan_ends.argtypes = [*[pointer] * 3, ctypes.c_float, integer, ctypes.c_int]
    library.scan_carry.argtypes = [*[pointer] * 4, *[integer] * 3, *[ctypes.c_int] * 2]
    library.scan_backward.argtypes = [pointer, _Array, _Array, _Array, *[pointer] * 5, integer, ctypes.c_int]
    return library
