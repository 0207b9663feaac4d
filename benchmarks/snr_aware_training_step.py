"""A training step of SNR-Aware: forward, summed Charbonnier loss, backward, Adam. Ours against the literal network.

Adam passes over 39 million parameters; ours is the fused one, as in the recipe. `llie, plain Adam` is without it.

python benchmarks/snr_aware_training_step.py [--size 256 256] [--batch 1] [--threads 1] [--rounds 5]
"""

import argparse
from collections.abc import Callable

import torch
from literal_snr_aware import LiteralSNRAware
from timing import compare, report
from torch import Tensor, nn

from llie.archs.snr_aware import SNRAware
from llie.engine.allocator import keep_large_blocks
from llie.losses import create_loss


def make_step(network: nn.Module, low: Tensor, gt: Tensor, fused: bool) -> Callable[[], float]:
    loss = create_loss({"type": "CharbonnierLoss", "reduction": "sum", "eps": 1e-6})
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-4, betas=(0.9, 0.99), fused=fused)

    def step() -> float:
        optimiser.zero_grad()
        value = loss(network(low), gt)
        value.backward()
        optimiser.step()
        return float(value.detach())

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    keep_large_blocks()
    torch.manual_seed(0)
    low = torch.rand(arguments.batch, 3, *arguments.size) * 0.3
    literal = LiteralSNRAware().train()
    steps = {"literal": make_step(literal, low, 3 * low, fused=False)}
    for name in ("llie, plain Adam", "llie"):
        ours = SNRAware().train().to(memory_format=torch.channels_last)
        ours.load_state_dict(literal.state_dict())
        steps[name] = make_step(ours, low, 3 * low, fused=name == "llie")
    values = {name: step() for name, step in steps.items()}
    assert abs(values["llie"] / values["literal"] - 1) < 1e-5, values
    size = f"{arguments.batch}x3x{arguments.size[0]}x{arguments.size[1]}"
    report(f"Training step of SNR-Aware, {size}", compare(steps, arguments.rounds))


if __name__ == "__main__":
    main()
