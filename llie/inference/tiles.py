"""Large images in pieces, exact for networks whose result depends only on a margin around each pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

LEAST = 64  # smallest side of a piece's result; smaller pieces would be nearly all margin
ALIGNMENT = 8  # pieces begin at multiples of this, because networks may halve the resolution three times


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
