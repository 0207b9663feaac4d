"""Inference of every network against its literal form: one table of sizes and threads.

    python benchmarks/inference.py [--networks HVISMM DRBN] [--threads 1 2] [--fast] [--compile]
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/inference.py

Both work on the same image with the same weights, alternately; a cell is the median of the ratios. Sizes are width x
height. MambaLLIE, whose literal scan takes minutes, is in `mamballie_inference.py`.
"""

import argparse
import os
from collections.abc import Callable

import torch
from literal_networks import literal_form
from timing import compare, threads
from torch import Tensor, nn
from torch.nn import functional as F

from llie.archs import create_network
from llie.inference.fast import psnr
from llie.models.base import result_of
from llie.ops.fusion import fuse
from llie.ops.padding import at_size

NETWORKS = ["HVICIDNet", "HVISMM", "SNRAware", "LFPV", "DRBN", "HDM", "ZeroDCE"]
TOLERANCE = 1e-4  # of results of order one, with random weights


def dark_image(width: int, height: int) -> Tensor:
    """A smooth dark image with a little noise, (1, 3, H, W)."""
    smooth = F.interpolate(torch.rand(1, 3, height // 16 + 1, width // 16 + 1), (height, width), mode="bilinear")
    return (0.2 * smooth + 0.02 * torch.rand(1, 3, height, width)).clamp(0, 1)


def both(name: str) -> tuple[nn.Module, nn.Module]:
    """A network as `llie enhance` runs it, and its literal form, with the same random weights."""
    torch.manual_seed(0)
    network = create_network(name).eval()
    literal = literal_form(name, network, {}, pixels=0)
    assert literal is not None, name
    return fuse(network), literal.eval()


def variants_of(name: str, x: Tensor, fast: bool, compiled: bool) -> dict[str, Callable[[], Tensor]]:
    """The computations to compare; the literal form first."""
    network, literal = both(name)

    def run_literal() -> Tensor:
        if name == "LFPV":  # works at the next smaller size that its patches divide, as published
            size = [side - side % 16 for side in x.shape[-2:]]
            return at_size(size)(lambda _, image: result_of(literal(image)))(None, x)
        return result_of(literal(x))

    def run(network: nn.Module = network, bfloat16: bool = False) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return network(x)

    variants: dict[str, Callable[[], Tensor]] = {"literal": run_literal, "llie": run}
    if fast:
        variants["bfloat16"] = lambda: run(bfloat16=True).float()
    if compiled:
        module = torch.compile(network, dynamic=False)
        variants["compiled"] = lambda: run(module)
        if fast:
            variants["both"] = lambda: run(module, bfloat16=True).float()
    return variants


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--sizes", nargs="+", default=["256x256", "600x400"], help="width x height")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fast", action="store_true", help="bfloat16, too, with its PSNR against the literal result")
    parser.add_argument("--compile", action="store_true", help="compiled, too")
    options = parser.parse_args()

    print(f"{torch.backends.cpu.get_cpu_capability()}, medians of {options.rounds} rounds")
    for name in options.networks:
        for size in options.sizes:
            variants = variants_of(name, dark_image(*map(int, size.split("x"))), options.fast, options.compile)
            expected = variants["literal"]()
            torch.testing.assert_close(variants["llie"](), expected, atol=TOLERANCE, rtol=0)
            for number in options.threads:
                with threads(number):
                    results = compare(variants, options.rounds)
                cells = [f"{name:<10}{size:>9}{number:>3} threads"]
                for variant, (seconds, ratio) in results.items():
                    cells.append(f"{variant} {1000 * seconds:7.1f} ms" + f" {ratio:5.2f}x" * (variant != "literal"))
                if options.fast:
                    cells.append(f"{psnr(variants['bfloat16'](), expected):.1f} dB")
                print("   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
