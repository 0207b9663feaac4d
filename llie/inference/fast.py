"""A faster form of a network, where there is one: fewer digits, if that is measured to pay and to lose little."""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llie.ops.integers import in_integers
from llie.ops.linear import integers_are_fast

SIDE = 256  # pixels, of the small version of a picture that decides
ROUNDS = 3
WORTH = 1.1  # a form must be that many times as fast
LEAST = 40.0  # dB between its result and that of float32, at least
FLOAT32, INTEGERS, BFLOAT16 = "float32", "16-bit integers", "bfloat16"

Run = Callable[[Tensor], Tensor]


class Fast:
    """Decides at the first picture how a network computes, and says so in one line.

    On a CPU, it tries products of 16-bit integers (`llie.ops.integers`), and bfloat16 with these products in Winograd's
    convolutions; on a GPU, bfloat16. It takes the fastest form that pays and loses little.

    Args:
        device: that the network runs on.
        tell: gets the line; standard error, if None.
    """

    def __init__(self, device: torch.device, tell: Callable[[str], None] | None = None):
        self.device = device
        self.tell = tell or (lambda line: print(line, file=sys.stderr))
        self.form: str | None = None  # not decided yet

    def choose(self, run: Run, x: Tensor) -> None:
        """Decide, unless that is done.

        Args:
            run: the network, (1, 3, h, w) in, the same out.
            x: the picture (B, 3, H, W) in [0, 1], float32; a small version of its first image decides.
        """
        if self.form is not None:
            return
        self.form = FLOAT32
        self.tell(f"fast: {self._choose(run, x[:1])}")

    def _choose(self, run: Run, x: Tensor) -> str:
        forms = forms_of(self.device)
        if not forms:
            return "float32, because neither 16-bit integers nor bfloat16 are fast on this machine"
        small, losses, reasons = _small(x), {}, []
        exact = self._computed(run, small, FLOAT32)
        for form in forms:
            try:
                loss = psnr(self._computed(run, small, form), exact)
            except RuntimeError:  # an operation without this type
                reasons.append(f"the network cannot compute in {form}")
                continue
            if loss >= LEAST:
                losses[form] = loss
            else:
                reasons.append(f"with {form} the result has {loss:.1f} dB against it, less than {LEAST:g} dB")
        times = [[self._seconds(run, small, form) for form in (FLOAT32, *losses)] for _ in range(ROUNDS)]
        ratios = {
            form: statistics.median(each[0] / each[place] for each in times) for place, form in enumerate(losses, 1)
        }
        best = max(ratios, key=ratios.__getitem__, default=None)
        if best is not None and ratios[best] >= WORTH:
            self.form = best
            what = f"{ratios[best]:.1f} times as fast as float32 and {losses[best]:.1f} dB against it"
            return f"{best}, {what}, on a small first picture"
        if best is not None:
            reasons.append(f"with {best} it is only {ratios[best]:.1f} times as fast")
        return f"float32, because {' and '.join(reasons)}"

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """While it is open, the network computes as it was decided."""
        return computing_in(self.form or FLOAT32, self.device)

    def in_strips(self) -> contextlib.AbstractContextManager[Any]:
        """The same for networks that work in strips of rows, whose maps stay in float32: in integers at most."""
        return in_integers(self.device.type == "cpu" and self.form not in (None, FLOAT32))

    def _computed(self, run: Run, x: Tensor, form: str) -> Tensor:
        with computing_in(form, self.device):
            return run(x).float()

    def _seconds(self, run: Run, x: Tensor, form: str) -> float:
        start = time.perf_counter()
        self._computed(run, x, form)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


def forms_of(device: torch.device) -> list[str]:
    """Forms that may be faster than float32 on a device."""
    integers = [INTEGERS] if device.type == "cpu" and integers_are_fast() else []
    return integers + ([BFLOAT16] if has_bfloat16(device) else [])


@contextlib.contextmanager
def computing_in(form: str, device: torch.device) -> Iterator[None]:
    """While it is open, networks compute in a form."""
    with torch.autocast(device.type, torch.bfloat16, enabled=form == BFLOAT16), in_integers(form != FLOAT32):
        yield


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
