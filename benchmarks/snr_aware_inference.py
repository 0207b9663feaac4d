"""SNR-Aware inference: ours against a literal implementation of the network, with and without valid tokens.

python benchmarks/snr_aware_inference.py [--sizes 400x608] [--threads 1] [--rounds 9]
"""

import argparse
import os

import torch
from hvi_smm_inference import threads
from literal_snr_aware import LiteralSNRAware
from timing import compare, report

from llie.archs.snr_aware import SNRAware
from llie.engine.allocator import keep_large_blocks


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--sizes", nargs="+", default=["256x256", "400x608"], help="height x width, multiples of 16")
    arguments = parser.parse_args()

    keep_large_blocks()
    torch.manual_seed(0)
    network, literal = SNRAware().eval(), LiteralSNRAware().eval()
    literal.load_state_dict(network.state_dict())
    for size in arguments.sizes:
        height, width = map(int, size.split("x"))
        x = torch.rand(1, 3, height, width) * 0.3
        maps = {
            "as on photographs": network.snr(x),
            "half of the tokens valid": torch.linspace(0, 1, width).expand(1, 1, height, width),
        }
        for name, snr in maps.items():
            torch.testing.assert_close(network(x, snr), literal(x, snr), atol=2e-5, rtol=0)
            # The first map is part of the work; the second is a given one.
            given = None if name == "as on photographs" else snr
            for number in arguments.threads:
                with threads(number):
                    variants = {
                        "literal": lambda x=x, given=given: literal(x, given),
                        "llie": lambda x=x, given=given: network(x, given),
                    }
                    report(f"SNR-Aware {size}, {name}", compare(variants, arguments.rounds))


if __name__ == "__main__":
    main()
