"""How much memory there is, and how much may be used."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

import torch

from llie.errors import UserError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def memory_budget(memory: str | float | None, device: torch.device) -> int:
    """Bytes that may be used: what the user says ("4GB", "512MiB", a number of bytes), else half of what is free.

    Raises:
        UserError: it is not an amount of memory.
    """
    if memory is None:
        return free_memory(device) // 2
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?i?)b?\s*", str(memory).lower())
    if found is None or found[2] not in _UNITS or float(found[1]) <= 0:
        raise UserError(f"memory: {memory!r} is not an amount of memory; write for instance 4GB or 512MiB")
    return int(float(found[1]) * _UNITS[found[2]])


def free_memory(device: torch.device) -> int:
    """Bytes free on the device; 4 GiB where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:  # counts caches that the system would give back
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return 4 * 2**30


class _Heap(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "free", "top")
    ]


def return_free_memory(least: int = 0) -> None:
    """Give memory that no tensor uses back to the system; by itself, glibc keeps what lies between used blocks.

    Args:
        least: bytes, below which it is kept: the system would clear it again, if it is used again.
    """
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "mallinfo2"):  # since glibc 2.33
            library.mallinfo2.restype = _Heap
            if library.mallinfo2().free < least:
                return
        if hasattr(library, "malloc_trim"):  # other C libraries lack it
            library.malloc_trim(0)
