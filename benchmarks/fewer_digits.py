"""The forms of `llie enhance --fast` against float32: time, and PSNR between the results.

python benchmarks/fewer_digits.py [--model dawn hvi-smm ...] [--size 256x256] [--threads 1 2]

A model is whatever `llie.load` takes; a network without weights on this machine has random ones, and only its time
counts.
"""

import argparse
import functools

import torch
from timing import compare, report, threads
from torch import nn

import llie
from llie.archs import create_network
from llie.errors import UserError
from llie.inference.fast import FLOAT32, computing_in, forms_of, psnr
from llie.inference.loading import network_names
from llie.ops.fusion import fuse

CPU = torch.device("cpu")
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

        def run(form: str, network: nn.Module = network) -> torch.Tensor:
            with torch.inference_mode(), computing_in(form, CPU):
                return network(x).float()

        forms = {form: functools.partial(run, form) for form in [FLOAT32, *forms_of(CPU)]}
        for number in options.threads:
            with threads(number):
                report(f"{model} {options.size}", compare(forms, options.rounds))
        losses = [
            f"{form} {psnr(run(FLOAT32), compute()):.1f} dB" for form, compute in forms.items() if form != FLOAT32
        ]
        print(f"  {', '.join(losses)}" + ("" if trained else ", random weights"))


if __name__ == "__main__":
    main()
