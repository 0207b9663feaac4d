"""Reuse freed memory instead of returning it to Linux, and release what cannot be reused."""

from __future__ import annotations

import ctypes
import os
import sys

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4

# Larger images return their blocks: no tensor of the next layer fits exactly into the holes between kept blocks, which
# would double the peak (MambaLLIE at 960x540: from 2.2 to 4 GiB).
KEPT_PIXELS = 2**19

_kept = False


def keep_large_blocks() -> bool:
    """Make glibc take large blocks from its heap and keep them after use; call once, before large tensors exist.

    By default, tensors above at most 32 MiB always get new memory, which Linux clears page by page at first use: a
    fifth of the time of HVI-SMM at 600x400, a twentieth of a small training step. With this, the process keeps its peak
    memory until it ends. It also asks for huge pages, which Linux clears faster: 5 % of the time of a large image in
    strips. PyTorch reads that before its first tensor. The environment variable LLIE_KEEP_MEMORY=0 turns both off, and
    THP_MEM_ALLOC_ENABLE=0 only huge pages.

    Returns:
        Whether it took effect; it does only on Linux with glibc.
    """
    if os.environ.get("LLIE_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return False
    if not hasattr(_libc(), "mallopt"):  # other C libraries lack it
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    global _kept
    _kept = _mallopt(_M_MMAP_MAX, 0) and _mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    return _kept


def suit(pixels: int) -> None:
    """Keep or return large blocks, depending on the number of pixels; no effect before `keep_large_blocks`."""
    if not _kept:
        return
    if pixels <= KEPT_PIXELS:
        _mallopt(_M_MMAP_MAX, 0)
    else:
        _libc().malloc_trim(0)  # return the memory of smaller images
        _mallopt(_M_MMAP_MAX, 2**16)
        _mallopt(_M_MMAP_THRESHOLD, 2**25)  # the largest value that glibc accepts


def expect_many_sizes() -> None:
    """Limit the number of compiled convolutions that are kept; call once, before the first convolution.

    PyTorch's CPU convolutions (oneDNN) are compiled for each image size, and by default the last 1024 are kept: 300 MiB
    after a few hundred photographs of different sizes. A limit of 64 costs no measurable time (HVI-SMM and HDM at
    120x96).
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _mallopt(parameter: int, value: int) -> bool:
    return _libc().mallopt(parameter, value) == 1
