"""Compares an exported file with its network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llie.data.demo import darkened
from llie.data.readers import to_tensor
from llie.errors import UserError
from llie.export.graph import Graph

SIZES = ((1, 67, 91), (2, 96, 64), (1, 33, 50))  # batch, height, width; all differ from the recorded size
Report = Callable[[str], None]


@dataclass(frozen=True)
class Difference:
    """The difference between the results of a file and of its network, for values in [0, 1].

    Attributes:
        size: batch, height and width of the image.
        controls: values of the controls.
        largest: largest absolute difference.
        mean: mean absolute difference.
        psnr: peak signal-to-noise ratio in dB; infinite if the results are equal.
    """

    size: tuple[int, int, int]
    controls: dict[str, float]
    largest: float
    mean: float
    psnr: float

    def __str__(self) -> str:
        batch, height, width = self.size
        given = "".join(f", {name}={value:g}" for name, value in self.controls.items())
        return (
            f"{batch} of {height}x{width}{given}: largest difference {self.largest:.1e}, mean {self.mean:.1e}"
            f" ({self.psnr:.1f} dB)"
        )


def verify(
    graph: Graph, written: nn.Module, tolerance: float | None, least_psnr: float | None, report: Report
) -> list[Difference]:
    """Run both on dark photographs of several sizes; for the first one, every control has 0.75 times its default.

    Args:
        graph: what was exported.
        written: the file, as a network.
        tolerance: largest absolute difference allowed; None: any.
        least_psnr: smallest PSNR allowed, in dB, for files of lower precision; None: any.
        report: called with a line about each difference.

    Raises:
        UserError: a difference is larger than allowed, or the file cannot be run.
    """
    found: list[Difference] = []
    for size, image in zip(SIZES, dark_images(SIZES), strict=True):
        controls = {} if found else {name: 0.75 * value for name, value in graph.numbers.items()}
        difference = compare(graph, written, image, controls)
        report(str(difference))
        found.append(difference)
        if tolerance is not None and not difference.largest <= tolerance:
            raise UserError(
                f"the exported file differs from {type(graph.network).__name__} by {difference.largest:.2g} on an "
                f"image of {size[1]}x{size[2]}, more than {tolerance:g}; nothing was written"
            )
        if least_psnr is not None and not difference.psnr >= least_psnr:
            raise UserError(
                f"the exported file is {difference.psnr:.1f} dB from {type(graph.network).__name__} on an image of "
                f"{size[1]}x{size[2]}, less than {least_psnr:g} dB; nothing was written"
            )
    return found


def compare(graph: Graph, written: nn.Module, image: Tensor, controls: dict[str, float]) -> Difference:
    """The difference for one batch (B, 3, H, W)."""
    with torch.inference_mode():
        expected = graph.network(image, **graph.fixed, **(graph.numbers | controls)).clamp(0, 1).double()
        result = written(image, **controls).double()
    size = (len(image), *image.shape[-2:])
    if result.shape != expected.shape:
        raise UserError(
            f"the exported file gives {tuple(result.shape)} for an image {tuple(image.shape)}; nothing was written"
        )
    difference = (result - expected).abs()
    error = difference.square().mean().item()
    psnr = -10 * math.log10(error) if error > 0 else math.inf if error == 0 else math.nan
    return Difference(size, controls, difference.max().item(), difference.mean().item(), psnr)


def dark_images(sizes: Sequence[tuple[int, int, int]]) -> Iterator[Tensor]:
    """Parts of dark photographs with noise, as batches (B, 3, H, W) of these sizes."""
    random = np.random.default_rng(0)
    for batch, height, width in sizes:
        parts: list[Any] = []
        for number in range(batch):
            photograph = darkened(("chelsea.png", "coffee.png")[number % 2], random)
            top = random.integers(0, photograph.shape[0] - height + 1)
            left = random.integers(0, photograph.shape[1] - width + 1)
            parts.append(to_tensor(photograph[top : top + height, left : left + width]))
        yield torch.stack(parts)
