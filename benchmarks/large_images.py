"""Memory and time of every network on large images in strips, and the difference from the image in one piece.

Each network runs in a process of its own, whose peak memory is read at the end. CPU seconds are stated beside seconds:
on a busy machine they are the ones that compare. Those that the system takes, to clear pages of memory and for files,
are stated apart: they depend on the machine, and in virtual ones they are many.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import torch

from llie.archs import create_network
from llie.engine import allocator
from llie.ops.fusion import fuse
from llie.strips import InMemory

NETWORKS = ("DRBN", "HVICIDNet", "HVISMM", "HDM", "SNRAware", "MambaLLIE")
FITS = (400, 600)  # a size that is also evaluated in one piece


class Times(NamedTuple):
    """Seconds, and CPU seconds of the program and of the system."""

    wall: float
    user: float
    system: float


def timed(function, *arguments) -> tuple[torch.Tensor, Times]:
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    result = function(*arguments)
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = time.perf_counter() - wall
    return result, Times(seconds, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)


def in_one_piece(network: torch.nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, Times]:
    """The result, and the medians of times."""
    allocator.suit(image[0, 0].numel())  # as `llie enhance` does for each image
    network(image)  # the first call prepares kernels
    runs = [timed(network, image) for _ in range(5)]
    return runs[0][0], Times(*map(statistics.median, zip(*(times for _, times in runs), strict=True)))


def measure(name: str, megapixels: float, memory: str) -> None:
    allocator.keep_large_blocks()
    torch.manual_seed(0)
    network = create_network(name, **({"gamma": 0.25} if name == "HDM" else {})).eval()
    for parameter in network.parameters():  # networks begin near the identity
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    fuse(network)  # after that, a write to `data` is not noticed
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    small, large = 0.5 * torch.rand(1, 3, *FITS), 0.5 * torch.rand(1, 3, height, height * 3 // 2)
    with torch.inference_mode():
        whole, before = in_one_piece(network, small)
        in_strips = InMemory(network, 10**8, tell=lambda line: None)(small)
        difference = (whole - in_strips).abs().max().item()
        bounded = InMemory(network, memory, tell=lambda line: print(f"  {line}", file=sys.stderr))
        assert bounded.too_large(large.shape, large.device), "this size is evaluated in one piece: allow less memory"
        allocator.suit(large[0, 0].numel())
        _, strips = timed(bounded, large)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        # The speed of a shared machine changes within minutes, so one piece is timed on both sides.
        after = in_one_piece(network, small)[1]
    pixels = large.shape[2] * large.shape[3] / 1e6
    piece = Times(*((a + b) / 2 for a, b in zip(before, after, strict=True)))
    more = FITS[0] * FITS[1] / 1e6 / pixels
    ratio, of_user = more * (strips.user + strips.system) / (piece.user + piece.system), more * strips.user / piece.user
    print(
        f"| {name} | {pixels:.1f} | {peak:.2f} | {strips.wall:.0f} | {strips.user:.0f} + {strips.system:.0f} | "
        f"{(strips.user + strips.system) / pixels:.1f} | {ratio:.2f} | {of_user:.2f} | {difference:.1e} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument("--megapixels", type=float, default=24, help="size of the large image, 3:2")
    parser.add_argument("--memory", default="3GB", help="budget for its feature maps; PyTorch itself is not in it")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return measure(options.networks[0], options.megapixels, options.memory)
    print(
        f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}\n"
        "| network | megapixels | peak, GiB | seconds | CPU seconds, program + system | CPU s/MP | to 600x400 whole | "
        "without system | difference |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name in options.networks:
        words = [name, "--here", "--megapixels", str(options.megapixels), "--memory", options.memory]
        subprocess.run([sys.executable, __file__, *words], check=True)
    return None


if __name__ == "__main__":
    main()
