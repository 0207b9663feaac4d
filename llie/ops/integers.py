"""Products of 16-bit integers instead of float32 ones, in inference on CPUs, for callers that want speed.

Each row and each column is rounded by its own scale (`integers.h`): more than three digits remain, of which bfloat16
keeps two or three.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor

DEPTH = 256  # numbers in a column that share a scale; see integers.h

_wanted: ContextVar[bool] = ContextVar("integers", default=False)


class Integers(NamedTuple):
    """A matrix, or several, in integers.

    Attributes:
        numbers: int16, in the order that the kernels in C read.
        scales: what they are multiplied by, float32.
    """

    numbers: Tensor
    scales: Tensor


@contextlib.contextmanager
def in_integers(enabled: bool = True) -> Iterator[None]:
    """While it is open, operations without gradients that can compute in integers do that."""
    token = _wanted.set(enabled)
    try:
        yield
    finally:
        _wanted.reset(token)


def wanted() -> bool:
    """Whether `in_integers` is open."""
    return _wanted.get()
