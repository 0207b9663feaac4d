"""A training step of HDM on a CPU: ours against a literal implementation of the network.

    python benchmarks/hdm_training_step.py [--size 240 240] [--batch 1] [--threads 2] [--rounds 5]

A step is forward, L1 loss, backward and Adam. The literal network is that of `hdm_inference.py`.
"""

import argparse
from collections.abc import Callable

import torch
from hdm_inference import networks
from timing import compare, report
from torch import Tensor, nn
from torch.nn import functional as F


def make_step(network: nn.Module, low: Tensor, gt: Tensor) -> Callable[[], float]:
    optimiser = torch.optim.Adam(network.parameters(), lr=0.0)  # so that every step computes the same

    def step() -> float:
        optimiser.zero_grad()
        loss = F.l1_loss(network(low), gt)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 240))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    height, width = arguments.size
    gt = F.interpolate(torch.rand(arguments.batch, 3, height // 8, width // 8), (height, width), mode="bilinear")
    pair = {name: network.train() for name, network in networks().items() if name in ("literal", "ours")}
    steps = {name: make_step(network, gt * 0.2, gt) for name, network in pair.items()}
    values = {name: step() for name, step in steps.items()}
    assert abs(values["ours"] / values["literal"] - 1) < 1e-4, values
    theirs, ours = (dict(network.named_parameters()) for network in pair.values())
    for name, parameter in ours.items():
        error = (parameter.grad - theirs[name].grad).abs().max() / theirs[name].grad.abs().max()
        assert error < 1e-2, (name, error)
    report(f"Training step of HDM, {arguments.batch}x3x{height}x{width}", compare(steps, arguments.rounds))


if __name__ == "__main__":
    main()
