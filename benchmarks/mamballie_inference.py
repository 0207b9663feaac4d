"""Time and peak memory of MambaLLIE on a CPU, for each way of computing its scan.

The baseline replaces only the scan: four reordered copies, and one step per position (`selective_scan.py`).
Every measurement runs in its own process, because the peak memory of a process never falls.

    python benchmarks/mamballie_inference.py [--size 256x256] [--preset mamballie_48] [--threads 2] [--rounds 3]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from selective_scan import step_by_step
from torch import Tensor

from llie.archs import create_network, mamballie
from llie.ops.selective_scan import backends
from llie.ops.selective_scan.core import positions


def by_copies(
    x: Tensor, x_proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A_log: Tensor, D: Tensor, backend: str
) -> Tensor:
    """The usual implementation of the four-direction scan: reorder, stack, scan, put back, add."""
    batch, height, width, channels = x.shape
    rank, states = dt_proj.shape[2], A_log.shape[2]
    orders = [positions(k, height * width, width, x.device) for k in range(4)]
    image = x.flatten(1, 2).transpose(1, 2)
    u = torch.stack([image[:, :, order] for order in orders], 1)
    r, B, C = torch.einsum("bkdl,kcd->bkcl", u, x_proj).split([rank, states, states], 2)
    delta = torch.einsum("bkrl,kdr->bkdl", r, dt_proj)
    y = step_by_step(
        u.flatten(1, 2), delta.flatten(1, 2), -A_log.flatten(0, 1).exp(), B, C, D.flatten(),
        delta_bias=dt_bias.flatten(), delta_softplus=True,
    ).unflatten(1, (4, channels))  # fmt: skip
    total = sum(y[:, k][:, :, order.argsort()] for k, order in enumerate(orders))
    return total.transpose(1, 2).reshape(batch, height, width, channels)


def measure(scan: str, preset: str, height: int, width: int, threads: int, rounds: int) -> None:
    """Print the median seconds and the peak memory of one way, as JSON."""
    torch.set_num_threads(threads)
    if scan == "step by step":
        mamballie.ss2d = by_copies
    network = create_network(preset, scan_backend="auto" if scan == "step by step" else scan).eval()
    x, times = torch.rand(1, 3, height, width), []
    with torch.inference_mode():
        network(torch.rand(1, 3, 16, 16))  # loads the kernel
        for _ in range(rounds):
            start = time.perf_counter()
            network(x)
            times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": statistics.median(times), "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="256x256", help="WIDTHxHEIGHT")
    parser.add_argument("--preset", default="mamballie_48")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scans", nargs="+", default=["step by step", *backends.available("cpu")])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    width, height = (int(part) for part in options.size.split("x"))
    if options.child:
        measure(options.scans[0], options.preset, height, width, options.threads, options.rounds)
        return

    print(f"{options.preset} at {options.size}, {options.threads} threads")
    for scan in options.scans:
        rounds = 1 if scan == "step by step" else options.rounds
        command = [sys.executable, __file__, "--child", "--size", options.size, "--preset", options.preset]
        command += ["--threads", str(options.threads), "--rounds", str(rounds), "--scans", scan]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"  {scan:14s} {result['seconds']:8.2f} s   peak {result['peak']:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
