"""Calls a network as usual, and in strips of rows if an image does not fit into memory in one piece."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from llie.strips.memory import memory_budget
from llie.strips.run import WORKING, Read, Strips, Write

BYTES_PER_PIXEL = 2000  # of a whole image with all that a network keeps at once; measured 1030 to 1960, MambaLLIE 3060


class InMemory:
    """Evaluates a network within a memory budget.

    Args:
        network: in evaluation mode; (B, 3, H, W) in, the same out, and controls as further arguments.
        memory: limit, in bytes or as text ("4GB"); None: half of the free memory at the time of the call.
        tell: called with one line when strips are used for the first time; None: printed to standard error.

    Example:
        >>> InMemory(nn.Conv2d(3, 3, 3, padding=1), memory="1MB", tell=print)(torch.rand(1, 3, 60, 40)).shape
        Conv2d works in strips of rows: 0.0 megapixels in one piece may take more than 0.0 GB; the result is the same
        torch.Size([1, 3, 60, 40])
    """

    def __init__(
        self, network: nn.Module, memory: str | float | None = None, tell: Callable[[str], None] | None = None
    ):
        self.network, self.memory = network, memory
        self.tell = tell or (lambda line: print(line, file=sys.stderr))
        self.told = False
        self._planned: tuple[Any, Strips | None] = (None, None)

    def __call__(self, x: Tensor, **controls: Any) -> Any:
        """The network's result for x (B, 3, H, W); when strips are used, a tensor of the same shape."""
        if not self.too_large(x.shape, x.device):
            try:
                return self.network(x, **controls)
            except torch.OutOfMemoryError:  # of a GPU
                pass
        result = torch.empty_like(x)
        done = True
        for image, place in zip(x.split(1), result.split(1), strict=True):

            def read(first: int, stop: int, image: Tensor = image) -> Tensor:
                return image[:, :, first:stop]

            def write(first: int, stop: int, rows: Tensor, place: Tensor = place) -> None:
                place[:, :, first:stop] = rows

            done = done and self.in_strips(tuple(image.shape), read, write, controls, x.device)
        return result if done else self.network(x, **controls)

    def budget(self, device: torch.device) -> int:
        """Memory limit in bytes."""
        return memory_budget(self.memory, device)

    def too_large(self, shape: torch.Size, device: torch.device) -> bool:
        """Whether an image of this shape may not fit into memory in one piece.

        On a GPU without a given limit, only the attempt tells; after a failure, the image is evaluated in strips.
        """
        if self.memory is None and device.type != "cpu":
            return False
        return shape.numel() // 3 * BYTES_PER_PIXEL > self.budget(device)

    def in_strips(
        self, shape: tuple[int, ...], read: Read, write: Write, controls: dict[str, Any], device: torch.device
    ) -> bool:
        """Evaluate one image in strips.

        Args:
            shape: (1, 3, H, W).
            read: gives rows of the image, see `Strips`.
            write: takes rows of the result.
            controls: further arguments of the network.
            device: that of the network and of the rows.

        Returns:
            Whether it was done. False if the network's code depends on the values of pixels: it cannot be traced.
        """
        strips = self._strips(shape, controls, device)
        if strips is None:
            return False
        budget = self.budget(device)
        working = min(WORKING, budget // 4)
        if not self.told:
            self.tell(
                f"{type(self.network).__name__} works in strips of rows: {shape[2] * shape[3] / 1e6:.1f} megapixels "
                f"in one piece may take more than {budget / 1e9:.1f} GB; the result is the same"
            )
            self.told = True
        store = strips(read, write, max(0, budget - 2 * working), working)
        if store.written:
            self.tell(f"{store.written / 1e9:.1f} GB of feature maps were in a temporary file")
        return True

    def _strips(self, shape: tuple[int, ...], controls: dict[str, Any], device: torch.device) -> Strips | None:
        """The plan for images of this size, kept for the next one."""
        key = shape, device, tuple((name, repr(value)) for name, value in controls.items())
        if self._planned[0] != key:
            try:
                planned = Strips(lambda x: self.network(x, **controls), shape, device)
            except Exception as error:  # of whatever kind the code of the network raises
                self.tell(f"{type(self.network).__name__} cannot work in strips of rows ({type(error).__name__})")
                planned = None
            self._planned = key, planned
        return self._planned[1]
