"""LFPV inference against a literal implementation, at the size of LOL images.

python benchmarks/lfpv_inference.py [--sizes 400x608] [--threads 1 2] [--rounds 9]
"""

import argparse
import os

import torch
from literal_lfpv import LiteralLFPV
from timing import compare, report

from llie.archs import create_network


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--sizes", nargs="+", default=["400x608"], help="height x width, multiples of 16")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    literal, network = LiteralLFPV().eval(), create_network("LFPV").eval()
    for bank in (literal.common_feature, literal.common_feature_patch):
        bank.normal_()
    network.load_state_dict(literal.weights_as_ours())
    for size in arguments.sizes:
        x = torch.rand(1, 3, *map(int, size.split("x"))) * 0.3
        torch.testing.assert_close(network(x), literal(x), atol=1e-4, rtol=0)
        for number in arguments.threads:
            torch.set_num_threads(number)
            variants = {"literal": lambda x=x: literal(x), "llie": lambda x=x: network(x)}
            variants["llie, host alone"] = lambda x=x: network.host(x)
            report(f"LFPV {size}", compare(variants, arguments.rounds))


if __name__ == "__main__":
    main()
