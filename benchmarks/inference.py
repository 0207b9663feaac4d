"""Inference of every network against its literal form: one table of sizes and threads.

    python benchmarks/inference.py [--networks HVISMM DRBN] [--threads 1 2] [--fast] [--compile]
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/inference.py

All work on the same image with the same weights, alternately; a cell is the median of the ratios. Each has its own
process: that of the literal form allocates memory as the C library does by default, as official code; the others as
`llie enhance`, unless LLIE_KEEP_MEMORY=0. Sizes are width x height. MambaLLIE, whose literal scan takes minutes, is in
`mamballie_inference.py`.
"""

import argparse
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

import numpy as np
import torch
from literal_networks import literal_form
from literal_snr_aware import literal_snr_map
from timing import compare
from torch import Tensor
from torch.nn import functional as F

from llie.archs import create_network
from llie.engine.allocator import keep_large_blocks
from llie.inference.fast import BFLOAT16, FLOAT32, INTEGERS, computing_in, has_bfloat16, psnr
from llie.models.base import result_of
from llie.ops.fusion import fuse
from llie.ops.padding import at_size

NETWORKS = ["HVICIDNet", "HVISMM", "SNRAware", "LFPV", "DRBN", "HDM", "ZeroDCE"]
TOLERANCE = 1e-4  # of results of order one, with random weights


def dark_image(width: int, height: int) -> Tensor:
    """A smooth dark image with a little noise, (1, 3, H, W)."""
    torch.manual_seed(0)
    smooth = F.interpolate(torch.rand(1, 3, height // 16 + 1, width // 16 + 1), (height, width), mode="bilinear")
    return (0.2 * smooth + 0.02 * torch.rand(1, 3, height, width)).clamp(0, 1)


class Variant:
    """One way to compute a network's result, in a process of its own.

    Args:
        name: of the network.
        form: "literal", "llie", "integers", "bfloat16", "compiled", or "both" of these.
        size: width and height of the image.
    """

    def __init__(self, name: str, form: str, size: tuple[int, int]):
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, context, initializer=_prepare, initargs=(name, form, size))

    def __call__(self) -> None:
        self.pool.submit(_run).result()

    def result(self) -> Tensor:
        """The image that it computes."""
        return torch.from_numpy(self.pool.submit(_result).result())

    def use_threads(self, number: int) -> None:
        """From now on, compute with this number of threads."""
        self.pool.submit(torch.set_num_threads, number).result()


_computation: list[Callable[[], Tensor]] = []  # of this process


def _prepare(name: str, form: str, size: tuple[int, int]) -> None:
    if form != "literal":
        keep_large_blocks()
    torch.manual_seed(0)
    network = create_network(name).eval()
    literal = literal_form(name, network, {}, pixels=0)
    assert literal is not None, name
    literal.eval()
    x = dark_image(*size)
    if form in ("compiled", "both"):
        network = torch.compile(network, dynamic=False)
    elif form != "literal":
        fuse(network)

    def run_literal() -> Tensor:
        if name != "LFPV":
            return result_of(literal(x))
        # It works at the next smaller size that its patches divide, as published, with the map of the whole image.
        smaller = [side - side % 16 for side in x.shape[-2:]]
        return at_size(smaller)(lambda _, x, snr: literal.network(x, snr))(None, x, literal_snr_map(x))

    def run() -> Tensor:
        precision = {"integers": INTEGERS, "bfloat16": BFLOAT16, "both": BFLOAT16}.get(form, FLOAT32)
        with torch.inference_mode(), computing_in(precision, torch.device("cpu")):
            return run_literal() if form == "literal" else network(x)

    _computation.append(run)


def _run() -> None:
    _computation[0]()


def _result() -> np.ndarray:  # because tensors would travel in shared memory
    return _computation[0]().float().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--sizes", nargs="+", default=["256x256", "600x400"], help="width x height")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fast", action="store_true", help="forms of --fast; their PSNR is with random weights")
    parser.add_argument("--compile", action="store_true", help="compiled, too")
    options = parser.parse_args()

    # A PyTorch that is limited to AVX2 has no bfloat16, either.
    bfloat16 = has_bfloat16(torch.device("cpu")) and "AVX512" in torch.backends.cpu.get_cpu_capability()
    fast = ["integers"] + ["bfloat16"] * bfloat16 if options.fast else []
    forms = ["literal", "llie", *fast] + ["compiled"] * options.compile
    forms += ["both"] * (options.fast and options.compile)
    print(f"{torch.backends.cpu.get_cpu_capability()}, medians of {options.rounds} rounds", flush=True)
    for name in options.networks:
        for size in options.sizes:
            variants = {form: Variant(name, form, tuple(map(int, size.split("x")))) for form in forms}
            with ExitStack() as processes:
                for variant in variants.values():
                    processes.enter_context(variant.pool)
                expected = variants["literal"].result()
                torch.testing.assert_close(variants["llie"].result(), expected, atol=TOLERANCE, rtol=0)
                losses = [f"{psnr(variants[form].result(), expected):.1f} dB" for form in fast]
                for number in options.threads:
                    for variant in variants.values():
                        variant.use_threads(number)
                    row = f"{name:<10}{size:>9}{number:>3} threads"
                    for form, (seconds, ratio) in compare(variants, options.rounds).items():
                        row += f"   {form} {1000 * seconds:7.1f} ms" + f" {ratio:5.2f}x" * (form != "literal")
                    print("   ".join([row, *losses]), flush=True)


if __name__ == "__main__":
    main()
