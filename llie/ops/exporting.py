"""Whether a network is being exported: operators then take a form that a graph of standard operators can hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_ACTIVE: ContextVar[bool] = ContextVar("exporting", default=False)


def exporting() -> bool:
    """Whether the caller runs to be recorded, with sizes that stand for any size, and no value to decide by."""
    return not torch.compiler.is_dynamo_compiling() and _ACTIVE.get()


@contextmanager
def for_export() -> Iterator[None]:
    """While it lasts, `exporting()` is true."""
    token = _ACTIVE.set(True)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
