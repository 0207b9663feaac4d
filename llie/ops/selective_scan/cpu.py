"""The C kernel `scan.c` through ctypes: compiled once, at first use, into the user's cache; needs a C compiler."""

from __future__ import annotations

import ctypes
import functools
import math
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
    threads, ranges = _shares(delta)
    begin = None if initial is None else initial.data_ptr()
    _check(_library().scan_forward(ctypes.byref(problem), _array(y), begin, last.data_ptr(), saved, ranges, threads))


def ends(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, bias: Tensor | None, directions: list[int], width: int,
    last: Tensor, sums: Tensor, initial: Tensor,
) -> None:  # fmt: skip
    """Fill the last state and the sums of step sizes (after softplus), (batch, groups, channels), without results."""
    problem, _keep = _problem(u, delta, A, B, B, bias, True, directions, width)
    threads, ranges = _shares(delta)
    _check(
        _library().scan_ends(
            ctypes.byref(problem), initial.data_ptr(), last.data_ptr(), sums.data_ptr(), ranges, threads
        )
    )


def backward(
    dy: Tensor, dlast: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None,
    softplus: bool, directions: list[int], width: int, starts: Tensor,
    du: Tensor, ddelta: Tensor, dA: Tensor, dB: Tensor, dC: Tensor,
) -> None:  # fmt: skip
    """Fill the gradients of all inputs, given those of y and of the last state."""
    problem, rates = _problem(u, delta, A, B, C, bias, softplus, directions, width)
    threads, ranges = _shares(delta)
    # The gradients of B and C sum over channels, that of A over the batch: each share fills its own part, added below.
    db, dc = u.new_empty(ranges, *B.shape), u.new_empty(ranges, *C.shape)
    da = u.new_empty(len(u), *rates.shape)
    dlast = dlast.contiguous()
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
    batch, length, groups, channels = delta.shape
    states = A.shape[2]
    rates = u.new_zeros(groups, -(-states // CHUNK) * CHUNK, -(-channels // LANES) * LANES)
    rates[:, :states, :channels] = A.transpose(1, 2) / math.log(2)
    offset = u.new_zeros(groups, rates.shape[2])
    if bias is not None:
        offset[:, :channels] = bias
    order = (ctypes.c_int64 * groups)(*directions)
    problem = _Problem(
        batch, length, groups, channels, states, width, u.shape[2] != groups, softplus,
        ctypes.addressof(order), rates.data_ptr(), offset.data_ptr(), _array(u), _array(delta), _array(B), _array(C),
    )  # fmt: skip
    problem.keep = order, offset  # the structure contains only their addresses
    return problem, rates


def _array(tensor: Tensor) -> _Array:
    return _Array(tensor.data_ptr(), *tensor.stride())


def _shares(delta: Tensor) -> tuple[int, int]:
    """Number of threads, and number of ranges of channels per image that gives work to every thread."""
    threads = torch.get_num_threads()
    vectors = -(-delta.shape[3] // LANES)
    return threads, min(vectors, -(-threads // len(delta)))


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("selective scan: no memory for the kernel's buffers")


@functools.cache
def _library() -> ctypes.CDLL:
    library = compiled_library(SOURCE)
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.scan_forward.argtypes = [pointer, _Array, *[pointer] * 3, integer, ctypes.c_int]
    library.scan_ends.argtypes = [*[pointer] * 4, integer, ctypes.c_int]
    library.scan_backward.argtypes = [pointer, _Array, _Array, _Array, *[pointer] * 5, integer, ctypes.c_int]
    return library
