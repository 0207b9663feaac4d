"""Places of blocks of different sizes in memory or in a file, which are used again."""

from __future__ import annotations

import bisect
import mmap

import torch
from torch import Tensor

PAGE = 4096  # bytes
SEGMENT = 2**28  # bytes asked for at once; the system provides them as they are used


class Space:
    """Numbers from 0 to a size, of which ranges are taken and given back. A range gets the first place that it fits in.

    Args:
        size: of all.
    """

    def __init__(self, size: int):
        self._free = [(0, size)] if size else []  # in order, with something between them

    @property
    def free(self) -> list[tuple[int, int]]:
        """The free ranges, in order: first number, and the one after the last."""
        return list(self._free)

    def take(self, size: int) -> int | None:
        """The first number of a free range of this size, which is no longer free; None if there is none."""
        for number, (start, stop) in enumerate(self._free):
            if stop - start >= size:
                self._free[number : number + 1] = [(start + size, stop)] if stop - start > size else []
                return start
        return None

    def give(self, start: int, size: int) -> None:
        """Have a range free again."""
        stop, number = start + size, bisect.bisect(self._free, (start,))
        if number < len(self._free) and self._free[number][0] == stop:
            stop = self._free.pop(number)[1]
        if number and self._free[number - 1][1] == start:
            number -= 1
            start = self._free.pop(number)[0]
        self._free.insert(number, (start, stop))


class Pages:
    """Memory of blocks that stay for long, apart from the heap.

    Among the temporary tensors of the heap, they would leave holes that nothing fits into: the process would grow to
    twice what it holds. New pages cost more time than the copy, as the system clears them one by one; so those of
    earlier blocks are used first.
    """

    def __init__(self) -> None:
        self._segments: list[tuple[mmap.mmap, int, Space]] = []  # with the address of the first byte
        self._sizes: dict[int, int] = {}  # bytes of each block, by its address

    def room(self, count: int, dtype: torch.dtype, most: int) -> Tensor | None:
        """Memory for so many values, if that is possible with at most so many bytes in all."""
        size = -(-count * dtype.itemsize // PAGE) * PAGE
        for memory, first, space in self._segments:
            place = space.take(size)
            if place is not None:
                self._sizes[first + place] = size
                return torch.frombuffer(memory, dtype=dtype, count=count, offset=place)
        new = min(max(size, SEGMENT), most - sum(len(memory) for memory, _, _ in self._segments))
        if new < size:
            return None
        # Not to be shared with other processes: that is the default, and takes longer.
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
        memory = mmap.mmap(-1, new, **private)
        self._segments.append((memory, torch.frombuffer(memory, dtype=torch.uint8).data_ptr(), Space(new)))
        return self.room(count, dtype, most)

    def holds(self, block: Tensor) -> bool:
        """Whether a tensor's memory is here."""
        return self._segment(block.untyped_storage().data_ptr()) is not None

    def drop(self, block: Tensor) -> None:
        """Nobody needs this block's values any more, if it is one of these."""
        at = block.untyped_storage().data_ptr()
        size, segment = self._sizes.pop(at, None), self._segment(at)
        if size is not None and segment is not None:
            _, first, space = segment
            space.give(at - first, size)

    def give_back(self) -> None:
        """Have the system take the pages that hold no block, until they are used again."""
        if not hasattr(mmap, "MADV_DONTNEED"):  # Windows
            return
        for memory, _, space in self._segments:
            for start, stop in space.free:
                first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
                if first < stop:
                    memory.madvise(mmap.MADV_DONTNEED, first, (stop - first) // mmap.PAGESIZE * mmap.PAGESIZE)

    def _segment(self, address: int) -> tuple[mmap.mmap, int, Space] | None:
        found = (s for s in self._segments if s[1] <= address < s[1] + len(s[0]))
        return next(found, None)
