"""Networks in bfloat16, as with `llie enhance --fast`, against float32: time, and PSNR between the results.

python benchmarks/bfloat16.py [--model dawn hvi-smm ...] [--size 256x256] [--threads 1 2]

A model is whatever `llie.load` takes; a network without weights on this machine has random ones, and only its time
counts.
"""

import argparse

import torch
from timing import compare, report, threads
from torch import nn

import llie
from llie.archs import create_network
from llie.errors import UserError
from llie.inference.fast import psnr
from llie.inference.loading import network_names
from llie.ops.fusion import fuse

NETWORKS = ["dawn", "HVICIDNet", "HVISMM", "SNRAware", "DRBN", "HDM", "MambaLLIE", "ZeroDCE"]


def network_of(model: str) -> tuple[nn.Module, bool]:
    """The network, and whether it has weights."""
    try:
        return llie.load(model, device="cpu").network, True
    except UserError:
        torch.manual_seed(0)
        return fuse(create_network(network_names().get(model.lower(), model)).eval()), False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=NETWORKS)
    parser.add_argument("--size", default="256x256", help="height x width")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    height, width = map(int, options.size.split("x"))
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), (height, width), mode="bicubic").clamp(0, 1)
    x = (0.2 * smooth + 0.02 * torch.rand(1, 3, height, width)).clamp(0, 1)
    for model in options.model:
        network, trained = network_of(model)

        def run(network=network, bfloat16=False):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                return network(x)

        for number in options.threads:
            with threads(number):
                results = compare({"float32": run, "bfloat16": lambda run=run: run(bfloat16=True)}, options.rounds)
                report(f"{model} {options.size}", results)
        print(f"  {psnr(run(), run(bfloat16=True).float()):.1f} dB" + ("" if trained else ", random weights"))


if __name__ == "__main__":
    main()
