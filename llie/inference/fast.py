"""A faster form of a network, where there is one: bfloat16, if a measurement shows that it pays and loses little."""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 256  # pixels, of the small version of a picture that decides
ROUNDS = 3
WORTH = 1.1  # bfloat16 must be that many times as fast
LEAST = 40.0  # dB between its result and that of float32, at least

Run = Callable[[Tensor], Tensor]


class Fast:
    """Decides at the first picture whether a network computes in bfloat16, and says so in one line.

    Args:
        device: that the network runs on.
        tell: gets the line; standard error, if None.
    """

    def __init__(self, device: torch.device, tell: Callable[[str], None] | None = None):
        self.device = device
        self.tell = tell or (lambda line: print(line, file=sys.stderr))
        self.bfloat16: bool | None = None  # not decided yet

    def choose(self, run: Run, x: Tensor) -> None:
        """Decide, unless that is done.

        Args:
            run: the network, (1, 3, h, w) in, the same out.
            x: the picture (B, 3, H, W) in [0, 1], float32; a small version of its first image decides.
        """
        if self.bfloat16 is not None:
            return
        self.bfloat16 = False
        self.tell(f"fast: {self._choose(run, x[:1])}")

    def _choose(self, run: Run, x: Tensor) -> str:
        if not has_bfloat16(self.device):
            return "float32, because PyTorch finds no bfloat16 instructions in this processor"
        small = _small(x)
        try:
            loss = psnr(self._computed(run, small, True), self._computed(run, small, False))
        except RuntimeError:  # an operation without this type
            return "float32, because the network cannot compute in bfloat16"
        if loss < LEAST:
            return f"float32, because bfloat16 gives {loss:.1f} dB against it, less than {LEAST:g} dB"
        times = [[self._seconds(run, small, bfloat16) for bfloat16 in (False, True)] for _ in range(ROUNDS)]
        ratio = statistics.median(exact / half for exact, half in times)
        if ratio < WORTH:
            return f"float32, because bfloat16 is only {ratio:.1f} times as fast"
        self.bfloat16 = True
        return f"bfloat16, {ratio:.1f} times as fast as float32 and {loss:.1f} dB against it, on a small first picture"

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """While it is open, the network computes as it was decided."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bool(self.bfloat16))

    def _computed(self, run: Run, x: Tensor, bfloat16: bool) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            return run(x).float()

    def _seconds(self, run: Run, x: Tensor, bfloat16: bool) -> float:
        start = time.perf_counter()
        self._computed(run, x, bfloat16)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


def has_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are instructions of the device, as far as PyTorch can tell."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # older versions lack them
    return device.type == "cpu" and any(getattr(torch.cpu, test, bool)() for test in tests)


def psnr(a: Tensor, b: Tensor) -> float:
    """PSNR between two images, clipped to [0, 1], in dB."""
    error = F.mse_loss(a.clamp(0, 1), b.clamp(0, 1)).item()
    return math.inf if error == 0 else -10 * math.log10(error)


def _small(x: Tensor) -> Tensor:
    """The image with at most `SIDE` pixels in height and in width."""
    scale = SIDE / max(x.shape[2:])
    if scale >= 1:
        return x
    return F.interpolate(x, [max(1, round(scale * size)) for size in x.shape[2:]], mode="bilinear", antialias=True)
