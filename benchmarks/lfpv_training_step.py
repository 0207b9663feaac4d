"""A training step of LFPV, forward to optimiser, against literal implementations of network and loss.

The losses are the published ones: Charbonnier on both results, and VGG19 (random weights cost as much) on the plain
one. `--no-vgg` leaves out VGG19, which takes the same time in both.

python benchmarks/lfpv_training_step.py [--size 256x256] [--batch 1] [--threads 2] [--rounds 5] [--no-vgg]
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from hvi_training_step import literal_features
from literal_lfpv import LiteralLFPV
from timing import compare, report
from torch import Tensor

from llie.archs import create_network
from llie.losses import create_loss
from llie.losses.vgg import layer_names

LAYERS = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1.0}


def random_vgg() -> dict[str, Tensor]:
    """VGG19's convolutions with random weights, in torchvision's names."""
    state, channels = {}, 3
    widths = iter([64] * 2 + [128] * 2 + [256] * 4 + [512] * 8)
    for index, name in enumerate(layer_names("vgg19")):
        if name.startswith("conv"):
            width = next(widths)
            state[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) / (3 * channels**0.5)
            state[f"features.{index}.bias"] = torch.zeros(width)
            channels = width
    return state


def literal_step(gt: Tensor, x: Tensor, vgg: dict[str, Tensor] | None) -> Callable[[], None]:
    network = LiteralLFPV().train()
    optimiser = torch.optim.Adam(network.parameters(), 4e-4, betas=(0.9, 0.99))

    def step() -> None:
        fused, plain = network(x)
        loss = sum(((y - gt) ** 2 + 1e-6).sqrt().sum() for y in (fused, plain))
        if vgg:
            pairs = zip(
                *(literal_features(image, vgg, list(LAYERS)) for image in (plain, gt)), LAYERS.values(), strict=True
            )
            loss = loss + 0.1 * sum(weight * (a - b.detach()).abs().sum() for a, b, weight in pairs)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def our_step(gt: Tensor, x: Tensor, weights: str | None) -> Callable[[], None]:
    network = create_network("LFPV").train()
    optimiser = torch.optim.Adam((p for p in network.parameters() if p.requires_grad), 4e-4, betas=(0.9, 0.99))
    pixel = {"type": "CharbonnierLoss", "reduction": "sum", "eps": 1e-6}
    specs = [pixel, {**pixel, "pred": "plain"}]
    if weights:
        vgg = {"type": "PerceptualLoss", "layer_weights": LAYERS, "use_input_norm": False, "reduction": "sum"}
        specs.append({**vgg, "weight": 0.1, "pred": "plain", "weights": weights})
    losses = [create_loss(spec) for spec in specs]

    def step() -> None:
        outputs = network(x, gt=gt)
        optimiser.zero_grad()
        sum(loss(outputs, {"gt": gt}) for loss in losses).backward()
        optimiser.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="256x256", help="height x width, multiples of 16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-vgg", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    torch.manual_seed(0)
    x = torch.rand(arguments.batch, 3, *map(int, arguments.size.split("x"))) * 0.3
    gt = (3 * x).clamp(max=1)
    vgg = random_vgg()
    with tempfile.TemporaryDirectory() as folder:
        torch.save(vgg, Path(folder) / "vgg19-dcbb9e9d.pth")
        variants = {
            "literal": literal_step(gt, x, None if arguments.no_vgg else vgg),
            "llie": our_step(gt, x, None if arguments.no_vgg else folder),
        }
    losses = "Charbonnier" if arguments.no_vgg else "Charbonnier and VGG19"
    report(f"LFPV training step, {arguments.size}, {losses}", compare(variants, arguments.rounds))


if __name__ == "__main__":
    main()
