"""Residual dense blocks in strips: rows come in turn, and each row of each map is computed once.

Every layer of such a block reads the input and the maps of all layers before it; a 1x1 convolution combines them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llie.ops import winograd_kernel
from llie.ops.parts import new_map
from llie.ops.pointwise import Pointwise
from llie.ops.winograd import Kernels
from llie.ops.winograd_matrices import TILE, Output

COLUMNS = 1024  # of the image, at a time: all maps of a strip of them stay in the cache


class DenseBlock:
    """The weights of a block, as they are used; see `llie.archs.drbn.RDB`.

    Args:
        kernels: for the input, and for the map of each layer but the last: of all layers that read it.
        bias: of all layers.
        fusion: the 1x1 convolution.
        width: channels of the input and of the result.
        growth: channels of each layer's map, a multiple of 8.
    """

    def __init__(self, kernels: Sequence[Kernels], bias: Tensor, fusion: Pointwise, width: int, growth: int):
        self.kernels, self.bias, self.fusion, self.width, self.growth = kernels, bias, fusion, width, growth

    @property
    def layers(self) -> int:
        """How many; as many rows and columns around its own does a result depend on."""
        return len(self.kernels)

    def fits(self, x: Tensor) -> bool:
        """Whether strips of an image can be computed by `begin`."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return False
        return x.shape[3] >= 8  # `Pointwise` needs as many pixels

    def begin(self) -> InTurn:
        """For one image."""
        return InTurn(self)

    def outputs(self, layer: int, maps: Sequence[Tensor], sums: Tensor) -> list[Output]:
        """Where the convolution of what a layer reads last goes: to its own map, and to sums of later layers."""
        at = layer * self.growth
        added = (sums[:, at - self.growth : at], sums[:, at:]) if layer else (None, None)
        outputs = [Output(maps[layer], added[0], relu=True)]
        return outputs if layer == self.layers - 1 else [*outputs, Output(sums[:, at:], added[1])]


class InTurn:
    """A block on one image whose rows come in turn, from the top to the bottom, in bands of columns.

    Args:
        block: its weights.
    """

    def __init__(self, block: DenseBlock):
        self.block = block
        self._bands: list[tuple[slice, slice, _Band]] = []  # columns of x, of the result among these, and the block

    def __call__(self, x: Tensor, *added: Tensor, rows: slice) -> Tensor:
        """Further rows of x (1, width, h, W) -> those of the result, to which rows of other maps are added."""
        height, width = rows.stop - rows.start, x.shape[3]
        if not self._bands:
            margin = -(-self.block.layers // TILE) * TILE
            count = -(-width // COLUMNS)
            apart = -(-width // count // TILE) * TILE  # about equal, so that none is very narrow
            for first in range(0, width, apart):
                low, stop = max(0, first - margin), min(first + apart, width)
                columns = slice(low, min(stop + margin, width))
                self._bands.append((columns, slice(first - low, stop - low), _Band(self.block)))
        result = new_map((1, self.block.width, height, width), torch.float32)
        for columns, inner, band in self._bands:
            place = slice(columns.start + inner.start, columns.start + inner.stop)
            part = band(x[..., columns], [each[..., columns] for each in added], rows.stop)
            result[..., place] = part[..., inner]
        return result


class _Band:
    """A block on the rows of an image, or of some of its columns."""

    def __init__(self, block: DenseBlock):
        self.block = block
        self._layers = block.layers * [0]  # rows of each layer's map that are computed
        self._known = self._done = 0  # rows of x, and of the result
        self._first = 0  # the first row in memory
        self._maps: list[Tensor] = []  # x, maps of all layers, and sums of layers that lack some of what they read

    def __call__(self, x: Tensor, added: Sequence[Tensor], stop: int) -> Tensor:
        """Further rows (1, width, h, W) -> the next rows of the result, up to row `stop`."""
        block, first = self.block, self._done
        self._extend(x)
        *sources, _ = self._maps[:-1]
        for layer, (source, kernel) in enumerate(zip(sources, block.kernels, strict=True)):
            start, end = self._layers[layer], min(stop + block.layers - 1 - layer, self._known)
            if start == end:
                continue
            self._layers[layer] = end
            *maps, sums = (self._rows(x, start, end) for x in self._maps[1:])
            outputs = block.outputs(layer, maps, sums)
            seen = self._rows(source, max(0, start - 1), min(end + 1, self._known))
            bias = None if layer else block.bias
            winograd_kernel.convolve(seen, kernel.factor, bias, outputs, above=min(start, 1))
        self._done = stop
        x, *maps = (self._rows(x, first, stop) for x in self._maps[:-1])
        return block.fusion([x, *maps], [x, *added])

    def _extend(self, x: Tensor) -> None:
        """Place further rows, and room for what becomes of them, behind the rows that are needed still."""
        block, before, first = self.block, self._known, max(0, self._done - 1)
        self._known += x.shape[2]
        channels = [block.width, *block.layers * [block.growth], (block.layers - 1) * block.growth]
        maps = [_rows_like(x, c, self._known - first) for c in channels]
        for old, new in zip(self._maps, maps, strict=False):
            new[:, :, : before - first] = self._rows(old, first, before)
        maps[0][:, :, before - first :] = x
        self._maps, self._first = maps, first

    def _rows(self, x: Tensor, first: int, stop: int) -> Tensor:
        return x[:, :, first - self._first : stop - self._first]


def _rows_like(x: Tensor, channels: int, rows: int) -> Tensor:
    return torch.empty((1, channels, rows, x.shape[3]), memory_format=torch.channels_last)
