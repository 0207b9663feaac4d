"""Maps of features that wait for later work, in blocks of rows: in memory as long as there is room, then in a file."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llie.errors import UserError
from llie.strips.space import Pages, Space

PAGES = 2**20  # bytes; blocks from this size on do not lie in the heap


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
        written: size of the scratch file in bytes.
    """

    def __init__(self, memory: int):
        self.memory = memory
        self.used = self.written = self.peak = 0
        self.windows: set[int] = set()  # addresses of their memory
        self._pages = Pages()
        self._file: Any = None
        self._places = Space(1 << 62)  # in the file

    def map(self, dim: int, in_file: bool = False) -> Map:
        """A new map, whose rows are along dimension `dim`; it may belong in the file even where memory is free."""
        return Map(self, dim, in_file)

    def window(self, dim: int) -> Window:
        """A new map of which few rows are held at a time."""
        return Window(self, dim)

    def close(self) -> None:
        """Give the scratch file back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def give_back(self) -> None:
        """Have the system take memory that holds no block."""
        self._pages.give_back()

    def use(self, size: int) -> None:
        """Count bytes that are held."""
        self.used += size
        self.peak = max(self.peak, self.used)

    def put(self, block: Tensor, in_file: bool = False) -> Tensor | _InFile:
        """Take a block in."""
        size = block.numel() * block.element_size()
        if in_file or self.used + size > self.memory:
            return self._write(block, size)
        if size >= PAGES and block.device.type == "cpu":
            room = self.room(block.shape, block.dtype, _is_channels_last(block))
            return self._write(block, size) if room is None else room.copy_(block)
        self.use(size)
        storage = block.untyped_storage()
        own = storage.nbytes() == size and not self._pages.holds(block) and storage.data_ptr() not in self.windows
        return block if own else block.clone(memory_format=torch.preserve_format)

    def room(self, shape: Sequence[int], dtype: torch.dtype, channels_last: bool) -> Tensor | None:
        """Memory of a large block, whose values are written there later; None where there is not enough."""
        count = math.prod(shape)
        size = count * dtype.itemsize
        values = self._pages.room(count, dtype, self.memory) if PAGES <= size <= self.memory - self.used else None
        if values is None:
            return None
        self.use(size)
        if not channels_last:
            return values.view(*shape)
        batch, channels, height, width = shape
        return values.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def get(self, block: Tensor | _InFile, dim: int = 0, rows: slice = slice(None)) -> Tensor:
        """A block's values, or its rows along a dimension."""
        if isinstance(block, Tensor):
            return block[(slice(None),) * dim + (rows,)]
        assert self._file is not None
        shape, order = block.shape, (0, 3, 1, 2) if block.channels_last else tuple(range(len(block.shape)))
        first, stop, _ = rows.indices(shape[order[dim]])
        apart = math.prod(shape[order[dim] + 1 :]) * block.dtype.itemsize  # bytes of a row
        if math.prod(shape[: order[dim]]) > 1:  # rows do not lie one after the other
            return self.get(block)[(slice(None),) * dim + (rows,)]
        tensor = torch.empty((*shape[: order[dim]], stop - first, *shape[order[dim] + 1 :]), dtype=block.dtype)
        self._file.seek(block.place + first * apart)
        view = _bytes(tensor)
        while view:
            view = view[self._file.readinto(view) :]
        return tensor.to(block.device).permute(order)

    def drop(self, block: Tensor | _InFile) -> None:
        """Forget a block."""
        if isinstance(block, Tensor):
            self.used -= block.numel() * block.element_size()
            self._pages.drop(block)
        else:
            self._places.give(block.place, math.prod(block.shape) * block.dtype.itemsize)

    def _write(self, block: Tensor, size: int) -> _InFile:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="llie-", buffering=0)  # noqa: SIM115 - closed in `close`
        device, block = block.device, block.cpu()
        channels_last = block.dim() == 4
        block = (block.permute(0, 2, 3, 1) if channels_last else block).contiguous()
        place = self._places.take(size)
        assert place is not None
        self.written = max(self.written, place + size)
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

    def __init__(self, store: Store, dim: int, in_file: bool = False):
        self.store, self.dim, self.in_file, self.done = store, dim, in_file, 0
        self._blocks: list[tuple[int, int, Tensor | _InFile]] = []
        self._no_rows: Tensor | None = None
        self._room: Tensor | None = None

    def room(self, count: int) -> Tensor | None:
        """Memory of the next rows, channels last; their values may be written there before they are appended.

        Returns:
            None where nothing was written yet, or where it is not certain that they will be held in memory.
        """
        like = self._no_rows
        if self._room is not None:
            self.store.drop(self._room)
            self._room = None
        if like is not None and not self.in_file and like.dim() == 4 and like.device.type == "cpu":
            shape = (*like.shape[: self.dim], count, *like.shape[self.dim + 1 :])
            self._room = self.store.room(shape, like.dtype, True)
        return self._room

    def append(self, rows: Tensor) -> None:
        """Write the next rows."""
        first, self.done = self.done, self.done + rows.shape[self.dim]
        room, self._room = self._room, None
        if room is None:
            self._blocks.append((first, self.done, self.store.put(rows, self.in_file)))
        else:
            self._blocks.append((first, self.done, room if room.data_ptr() == rows.data_ptr() else room.copy_(rows)))
        if self._no_rows is None:
            self._no_rows = rows.narrow(self.dim, 0, 0).clone()

    def read(self, first: int, stop: int) -> Tensor:
        """Rows `first` to `stop`, which were written and not released."""
        parts = [
            self.store.get(block, self.dim, slice(max(first, low) - low, min(stop, high) - low))
            for low, high, block in self._blocks
            if low < stop and first < high
        ]
        if not parts:  # of a padded map, say, the rows beyond the edge
            assert self._no_rows is not None
            return self._no_rows
        return parts[0] if len(parts) == 1 else torch.cat(parts, self.dim)

    def take(self) -> Tensor:
        """All rows in one tensor; the map is empty afterwards, and gave back each block as soon as it was copied."""
        result: Tensor | None = None
        while self._blocks:
            first, stop, block = self._blocks.pop(0)
            value = self.store.get(block)
            if result is None:
                result = _rows_like(value, self.dim, self.done)
            result.narrow(self.dim, first, stop - first).copy_(value)
            self.store.drop(block)
            del value, block  # before the next one is read
        assert result is not None
        return result

    def turned_upwards(self, function: Callable[[Tensor], Tensor]) -> Map:
        """A map of the results of `function`, which gets each block in turn from the last to the first.

        This map is empty afterwards; results have the size of the blocks that they are made of.
        """
        result = Map(self.store, self.dim)
        result.done = self.done
        while self._blocks:
            first, stop, block = self._blocks.pop()
            value = function(self.store.get(block))
            self.store.drop(block)
            result._blocks.insert(0, (first, stop, self.store.put(value)))
        return result

    def release(self, first: int) -> None:
        """Give back what lies before row `first`, as far as that fills whole blocks."""
        while self._blocks and self._blocks[0][1] <= first:
            self.store.drop(self._blocks.pop(0)[2])


class Window:
    """The last rows of a map that is written from its first row to its last: one after the other in memory.

    Where many rows wait, they do not move: further ones are written before them, where rows lay that nobody needs any
    more. Only parts of both are copied to be read.

    Attributes:
        done: rows written so far.
    """

    def __init__(self, store: Store, dim: int):
        self.store, self.dim, self.done = store, dim, 0
        self._rows: Tensor | None = None  # room for some, of which the first is that numbered `_start`
        self._start = self._needed = 0
        self._seam: int | None = None  # the first of the rows that were written before the others

    def room(self, count: int, like: Tensor | None = None) -> Tensor | None:
        """Memory of the next rows, whose values may be written there before they are appended.

        Args:
            count: rows.
            like: has the shape of the map, but for the rows, its type and its layout.

        Returns:
            None where nothing was written yet, and there is no `like`.
        """
        kept = self.done - self._needed
        if self._seam is not None and self._needed >= self._seam:
            self._start, self._seam = self._seam, None
        free, size = self._needed - self._start, 0 if self._rows is None else self._rows.shape[self.dim]
        if (
            self._rows is None
            or kept + count > size
            or (self._seam is not None and self.done + count - self._seam > free)
        ):
            like = self._rows if like is None else like
            if like is None:
                return None
            # So few kept rows move rarely.
            self._move(_rows_like(like, self.dim, kept + count + min(2 * kept, count)))
        elif self._seam is None and self.done + count - self._start > size:
            if kept > count and free >= count:
                self._seam = self.done
            elif kept > count and size < kept + 2 * count:  # enough for many kept rows never to move again
                self._move(_rows_like(self._rows, self.dim, kept + 2 * count))
            else:
                self._move(self._rows)
        assert self._rows is not None
        return self._rows.narrow(self.dim, self._place(self.done), count)

    def _place(self, row: int) -> int:
        return row - (self._start if self._seam is None or row < self._seam else self._seam)

    def append(self, rows: Tensor) -> None:
        """Write the next rows."""
        count = rows.shape[self.dim]
        place = self.room(count, rows)
        assert place is not None
        if place.data_ptr() != rows.data_ptr():
            place.copy_(rows)
        self.done += count

    def read(self, first: int, stop: int) -> Tensor:
        """Rows `first` to `stop`, which were written and not released; their memory may be that of this window."""
        assert self._rows is not None
        if self._seam is not None and first < self._seam < stop:
            return torch.cat([self.read(first, self._seam), self.read(self._seam, stop)], self.dim)
        return self._rows.narrow(self.dim, self._place(first), stop - first)

    def release(self, first: int) -> None:
        """Forget what lies before row `first`, as soon as there must be room for others."""
        self._needed = min(max(self._needed, first), self.done)
        if first > self.done:
            self._move(None)

    def _move(self, place: Tensor | None) -> None:
        """Have the rows that are needed at the beginning of other memory, or of the same."""
        old, kept = self._rows, None
        if old is not None and place is not None and self._needed < self.done:
            kept = self.read(self._needed, self.done)
        self._rows = place
        if old is not None and place is not old:
            self.store.use(-old.nbytes)
            self.store.windows.discard(old.data_ptr())
        if place is not None and place is not old:
            self.store.use(place.nbytes)
            self.store.windows.add(place.data_ptr())
        if kept is not None and place is not None:
            overlap = place is old and self._needed - self._start < self.done - self._needed
            start = place.narrow(self.dim, 0, self.done - self._needed)
            start.copy_(kept.clone(memory_format=torch.preserve_format) if overlap else kept)
        self._start, self._seam = self._needed, None


def _rows_like(tensor: Tensor, dim: int, count: int) -> Tensor:
    """Memory for so many rows of a map of which a tensor is a part."""
    shape = list(tensor.shape)
    shape[dim] = count
    layout = torch.channels_last if _is_channels_last(tensor) else torch.contiguous_format
    return torch.empty(shape, dtype=tensor.dtype, device=tensor.device, memory_format=layout)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def _bytes(tensor: Tensor) -> memoryview:
    array: Any = tensor.flatten().view(torch.uint8).numpy()
    return memoryview(array)
