"""Keep freed memory for the next step instead of handing it back to Linux, whose fresh pages cost time."""

from __future__ import annotations

import ctypes
import os
import sys

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


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
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries lack it
    if mallopt is None:
        return False
    return mallopt(_M_MMAP_MAX, 0) == 1 and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) == 1
