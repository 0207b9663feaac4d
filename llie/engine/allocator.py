"""Keep freed memory for the next step instead of handing it back to Linux, and keep nothing that is of no more use."""

from __future__ import annotations

import ctypes
import os
import sys

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4

# Larger images give their blocks back: holes between kept blocks fit no tensor of the next layer exactly, and would
# double the peak (MambaLLIE at 960x540: from 2.2 to 4 GiB).
KEPT_PIXELS = 2**19

_kept = False


def keep_large_blocks() -> bool:
    """Let glibc serve large blocks from its heap and keep them after use; call once, before large tensors exist.

    By default each tensor above 32 MiB at the latest is fresh memory, which Linux clears page by page at first touch:
    a fifth of the time of HVI-SMM at 600x400, a twentieth of a small training step. The process keeps its peak memory
    until it ends. The environment variable LLIE_KEEP_MEMORY=0 turns this off.

    Returns:
        Whether it took effect; not on other systems than Linux with glibc.
    """
    if os.environ.get("LLIE_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return False
    if not hasattr(_libc(), "mallopt"):  # other C libraries lack it
        return False
    global _kept
    _kept = _mallopt(_M_MMAP_MAX, 0) and _mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    return _kept


def suit(pixels: int) -> None:
    """Keep large blocks or give them back, as fits images of so many pixels; no effect before `keep_large_blocks`."""
    if not _kept:
        return
    if pixels <= KEPT_PIXELS:
        _mallopt(_M_MMAP_MAX, 0)
    else:
        _libc().malloc_trim(0)  # what smaller images left
        _mallopt(_M_MMAP_MAX, 2**16)
        _mallopt(_M_MMAP_THRESHOLD, 2**25)  # the largest that glibc takes


def expect_many_sizes() -> None:
    """Keep the compiled convolutions of few image sizes; call once, before the first convolution.

    PyTorch's CPU convolutions (oneDNN) are compiled for each size, and the last 1024 are kept: 300 MiB after some
    hundred photographs of different sizes. 64 cost no time that could be measured (HVI-SMM and HDM at 120x96).
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _mallopt(parameter: int, value: int) -> bool:
    return _libc().mallopt(parameter, value) == 1
