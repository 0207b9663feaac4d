"""Maps of features that wait for later work, in blocks of rows: in memory as long as there is room, then in a file."""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llie.errors import UserError

PAGES = 2**20  # bytes; blocks from this size on lie in pages of their own


class _InFile(NamedTuple):
    """Where a block lies in the scratch file.

    Attributes:
        place: of its first byte.
        shape: of the tensor as written.
        dtype: its type.
        channels_last: whether its channels were moved last before writing.
        device: where it was.
    """

    place: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool
    device: torch.device


class Store:
    """All maps of one image.

    Args:
        memory: bytes of maps to hold in memory; further blocks go to a scratch file, which nobody else sees and which
            disappears with the process.

    Attributes:
        written: bytes in the scratch file.
    """

    def __init__(self, memory: int):
        self.memory = memory
        self.used = self.written = self.peak = 0
        self._pages = _Pages()
        self._file: Any = None
        self._free: dict[int, list[int]] = {}  # places of blocks that were dropped, by their size

    def map(self, dim: int, in_memory: bool = False) -> Map:
        """A new map, whose rows are along dimension `dim`; `in_memory` if few of its rows are held at a time."""
        return Map(self, dim, in_memory)

    def close(self) -> None:
        """Give the scratch file back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def put(self, block: Tensor, in_memory: bool) -> Tensor | _InFile:
        """Take a block in."""
        size = block.numel() * block.element_size()
        if in_memory or self.used + size <= self.memory:
            self.used += size
            self.peak = max(self.peak, self.used)
            if not in_memory and size >= PAGES and block.device.type == "cpu":
                return self._pages.copy(block, self.memory - self.used)
            storage = block.untyped_storage()
            own = storage.nbytes() == size and storage.data_ptr() not in self._pages.used
            return block if own else block.clone(memory_format=torch.preserve_format)
        return self._write(block, size)

    def get(self, block: Tensor | _InFile) -> Tensor:
        """A block's values."""
        if isinstance(block, Tensor):
            return block
        assert self._file is not None
        tensor = torch.empty(block.shape, dtype=block.dtype)
        self._file.seek(block.place)
        view = _bytes(tensor)
        while view:
            view = view[self._file.readinto(view) :]
        tensor = tensor.to(block.device)
        return tensor.permute(0, 3, 1, 2) if block.channels_last else tensor

    def drop(self, block: Tensor | _InFile) -> None:
        """Forget a block."""
        if isinstance(block, Tensor):
            self.used -= block.numel() * block.element_size()
            self._pages.drop(block)
        else:
            self._free.setdefault(math.prod(block.shape) * block.dtype.itemsize, []).append(block.place)

    def _write(self, block: Tensor, size: int) -> _InFile:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="llie-", buffering=0)  # noqa: SIM115 - closed in `close`
        device, block = block.device, block.cpu()
        channels_last = block.dim() == 4
        block = (block.permute(0, 2, 3, 1) if channels_last else block).contiguous()
        places = self._free.get(size)
        if places:
            place = places.pop()
        else:
            place, self.written = self.written, self.written + size
        view = _bytes(block)
        try:
            self._file.seek(place)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise UserError(
                f"the scratch file in {tempfile.gettempdir()} cannot grow to {self.written / 1e9:.1f} GB "
                f"({error.strerror}); allow more memory, or set TMPDIR to a folder with more room"
            ) from None
        return _InFile(place, tuple(block.shape), block.dtype, channels_last, device)


class Map:
    """A map that is written from its first row to its last, and read in parts.

    Attributes:
        done: rows written so far.
    """

    def __init__(self, store: Store, dim: int, in_memory: bool):
        self.store, self.dim, self.in_memory, self.done = store, dim, in_memory, 0
        self._blocks: list[tuple[int, int, Tensor | _InFile]] = []

    def append(self, rows: Tensor) -> None:
        """Write the next rows."""
        first, self.done = self.done, self.done + rows.shape[self.dim]
        self._blocks.append((first, self.done, self.store.put(rows, self.in_memory)))

    def read(self, first: int, stop: int) -> Tensor:
        """Rows `first` to `stop`, which were written and not released."""
        parts = [
            self.store.get(block).narrow(self.dim, max(first, low) - low, min(stop, high) - max(first, low))
            for low, high, block in self._blocks
            if low < stop and first < high
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, self.dim)

    def take(self) -> Tensor:
        """All rows in one tensor; the map is empty afterwards, and gave back each block as soon as it was copied."""
        result: Tensor | None = None
        while self._blocks:
            first, stop, block = self._blocks.pop(0)
            value = self.store.get(block)
            if result is None:
                shape = list(value.shape)
                shape[self.dim] = self.done
                layout = torch.channels_last if _is_channels_last(value) else torch.contiguous_format
                result = torch.empty(shape, dtype=value.dtype, device=value.device, memory_format=layout)
            result.narrow(self.dim, first, stop - first).copy_(value)
            self.store.drop(block)
            del value, block  # before the next one is read
        assert result is not None
        return result

    def turned_upwards(self, function: Callable[[Tensor], Tensor]) -> Map:
        """A map of the results of `function`, which gets each block in turn from the last to the first.

        This map is empty afterwards; results have the size of the blocks that they are made of.
        """
        result = Map(self.store, self.dim, self.in_memory)
        result.done = self.done
        while self._blocks:
            first, stop, block = self._blocks.pop()
            value = function(self.store.get(block))
            self.store.drop(block)
            result._blocks.insert(0, (first, stop, self.store.put(value, self.in_memory)))
        return result

    def release(self, first: int) -> None:
        """Give back what lies before row `first`, as far as that fills whole blocks."""
        while self._blocks and self._blocks[0][1] <= first:
            self.store.drop(self._blocks.pop(0)[2])


class _Pages:
    """Memory of blocks that stay for long, apart from the heap, and used again for blocks of about the same size.

    Among the temporary tensors of the heap, they would leave holes that nothing fits into: the process would grow to
    twice what it holds. New pages cost more time than the copy: the system clears them one by one.

    Attributes:
        used: the memory of each block, by its address.
    """

    def __init__(self) -> None:
        self.used: dict[int, mmap.mmap] = {}
        self._spare: dict[int, list[mmap.mmap]] = {}
        self._spare_bytes = 0

    def copy(self, block: Tensor, spare: int) -> Tensor:
        """A copy of a block; afterwards, at most `spare` bytes are kept for later blocks."""
        count = block.numel()
        step = 2 ** max(12, (count * block.element_size()).bit_length() - 4)
        size = -(-count * block.element_size() // step) * step
        pages = self._spare.get(size) or [_new_pages(size)]
        if self._spare.get(size):
            self._spare_bytes -= size
        memory = pages.pop()
        if self._spare_bytes > spare:
            self._spare.clear()
            self._spare_bytes = 0
        flat = torch.frombuffer(memory, dtype=block.dtype, count=count)
        self.used[flat.untyped_storage().data_ptr()] = memory
        if _is_channels_last(block):
            batch, channels, height, width = block.shape
            return flat.view(batch, height, width, channels).permute(0, 3, 1, 2).copy_(block)
        return flat.view(block.shape).copy_(block)

    def drop(self, block: Tensor) -> None:
        """Nobody needs this block's values any more, if it is one of these."""
        memory = self.used.pop(block.untyped_storage().data_ptr(), None)
        if memory is not None:
            self._spare.setdefault(len(memory), []).append(memory)
            self._spare_bytes += len(memory)


def _new_pages(size: int) -> mmap.mmap:
    pages = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux: fewer and larger pages are ready sooner
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def _bytes(tensor: Tensor) -> memoryview:
    array: Any = tensor.flatten().view(torch.uint8).numpy()
    return memoryview(array)
