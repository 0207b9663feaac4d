"""Large images in pieces, exact for networks whose result depends only on a margin around each pixel."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from llie.errors import UserError

LEAST = 64  # smallest side of a piece's result; smaller pieces would be nearly all margin
ALIGNMENT = 8  # pieces begin at multiples of this, because networks may halve the resolution three times
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True)
class Tile:
    """One piece of an image.

    Attributes:
        rows: first row of the result, and the row after its last.
        columns: likewise for columns.
        outer_rows: the rows to compute it from, with a margin where the image continues.
        outer_columns: likewise for columns.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    outer_rows: tuple[int, int]
    outer_columns: tuple[int, int]


def split(height: int, width: int, halo: int, pixels: int) -> list[Tile]:
    """Divide an image into pieces of at most this many pixels, including margins, with the least total work.

    Args:
        height: height of the image.
        width: width of the image.
        halo: margin that each piece needs in pixels, a multiple of 8.
        pixels: largest number of pixels of a piece; but a piece has at least 64x64 pixels and its margin.
    """
    best: list[Tile] = []
    least = float("inf")
    for columns in range(1, -(-width // LEAST) + 1):
        across = _aligned(-(-width // columns))
        outer = min(width, across + 2 * halo)
        tall = pixels // outer
        down = _aligned(height) if tall >= height else (tall - 2 * halo) // ALIGNMENT * ALIGNMENT
        if down < min(LEAST, height):
            continue
        tiles = [
            Tile(rows, cols, _with_margin(rows, halo, height), _with_margin(cols, halo, width))
            for rows in _parts(height, down)
            for cols in _parts(width, across)
        ]
        work = sum((t.outer_rows[1] - t.outer_rows[0]) * (t.outer_columns[1] - t.outer_columns[0]) for t in tiles)
        if work >= least:
            break  # narrower pieces have more margin
        best, least = tiles, work
    return best or split(height, width, halo, (2 * halo + LEAST) ** 2)


def memory_budget(memory: str | float | None, device: torch.device) -> int:
    """Number of bytes that may be used: as given ("4GB", "512MiB", a number of bytes), or half of the free memory.

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
    """Number of free bytes on the device; 4 GiB if the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:  # includes caches that the system can free
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return 4 * 2**30


def smaller_on_failure(run: Callable[[int], None], pixels: int, tell: Callable[[str], None]) -> int:
    """Call `run(pixels)` with half as many pixels after each out-of-memory error of a GPU; returns what worked."""
    while True:
        try:
            run(pixels)
            return pixels
        except torch.OutOfMemoryError:
            pixels //= 2
            if pixels < 64 * 64:
                raise
            torch.cuda.empty_cache()
            tell(f"the GPU's memory is full; continuing in pieces of {pixels / 1e6:.2g} megapixels")


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _parts(size: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def _with_margin(part: tuple[int, int], halo: int, size: int) -> tuple[int, int]:
    return max(0, part[0] - halo), min(size, part[1] + halo)
