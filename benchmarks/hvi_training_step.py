"""A training step of HVI-SMM with its full loss: ours against literal implementations of network and loss.

python benchmarks/hvi_training_step.py [--size 256 256] [--batch 1] [--threads 1]

A step is forward, loss, backward and Adam. VGG19 has random weights, which cost as much as the trained ones. It is
measured twice, since our loss leaves the aligned prediction out while its weight 1 - W is exactly zero.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from hvi_smm_inference import LiteralSMM, official_names
from hvi_transform import masked_hvi_to_rgb, masked_rgb_to_hvi
from timing import compare, report
from torch import Tensor, nn

from llie.archs.hvi import HVISMM
from llie.losses import create_loss
from llie.losses.vgg import layer_names
from llie.ops.hvi import rgb_to_hvi

Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
Features = Callable[[Tensor], list[Tensor]]

TAPS = ("conv1_2", "conv2_2", "conv3_4", "conv4_4")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
BINOMIAL = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05])
GAUSSIAN = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2))


class LiteralNetwork(LiteralSMM):
    """The literal network with named outputs."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs with the names of ours."""
        final, base = super().forward(x)
        return {"out": final, "base": base, "k": self.trans["density_k"]}


def literal_network(state: dict[str, Tensor]) -> nn.Module:
    network = LiteralNetwork()
    network.load_state_dict(official_names(state, network))
    return network


def literal_features(x: Tensor, state: dict[str, Tensor], layers: Sequence[str]) -> list[Tensor]:
    found = []
    for index, name in enumerate(layer_names("vgg19")):
        if name.startswith("conv"):
            x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        else:
            x = F.relu(x) if name.startswith("relu") else F.max_pool2d(x, 2)
        if name in layers:
            found.append(x)
        if name == layers[-1]:
            return found
    raise AssertionError


def literal_ssim(p: Tensor, g: Tensor) -> Tensor:
    kernel = (torch.outer(GAUSSIAN, GAUSSIAN) / GAUSSIAN.sum() ** 2).expand(3, 1, 11, 11)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel, padding=5, groups=3)

    mp, mg = blur(p), blur(g)
    vp, vg, covariance = blur(p * p) - mp**2, blur(g * g) - mg**2, blur(p * g) - mp * mg
    numerator = (2 * mp * mg + 1e-4) * (2 * covariance + 9e-4)
    return 1 - (numerator / ((mp**2 + mg**2 + 1e-4) * (vp + vg + 9e-4))).mean()


def literal_laplacian(x: Tensor) -> Tensor:
    kernel = torch.outer(BINOMIAL, BINOMIAL).expand(3, 1, 5, 5)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)

    mask = torch.zeros_like(x)
    mask[:, :, ::2, ::2] = 4
    return x - blur(mask * blur(x))


def literal_single(p: Tensor, g: Tensor, features: Features, of_target: Features) -> Tensor:
    edge = F.mse_loss(literal_laplacian(p), literal_laplacian(g))
    perceptual = sum(F.mse_loss(a, b) for a, b in zip(features(p), of_target(g), strict=True))
    return F.l1_loss(p, g) + 0.5 * literal_ssim(p, g) + 50 * edge + 0.01 * perceptual


def literal_loss(state: dict[str, Tensor], share_targets: bool) -> Loss:
    """Each pair separately, square windows, nothing left out; VGG(g) and VGG(T(g)) once, or for each pair."""
    cache: dict[int, list[Tensor]] = {}

    def features(x: Tensor) -> list[Tensor]:
        return literal_features(((x + 1) / 2 - MEAN) / STD, state, TAPS)

    def of_target(g: Tensor) -> list[Tensor]:
        if id(g) not in cache or not share_targets:
            with torch.no_grad():
                cache[id(g)] = features(g)
        return cache[id(g)]

    def gt_mean(p: Tensor, g: Tensor, hvi_g: Tensor, k: Tensor) -> Tensor:
        hvi_p = masked_rgb_to_hvi(p, k)
        mu_p, mu_g = hvi_p[:, 2].mean((1, 2)), hvi_g[:, 2].mean((1, 2))
        a, b = mu_g.abs() + 1e-8, mu_p.abs() + 1e-8
        middle, s2 = (a + b) / 2, ((0.1 * a) ** 2 + (0.1 * b) ** 2) / 2
        kl = [torch.log(s2.sqrt() / (0.1 * u)) + ((0.1 * u) ** 2 + (u - middle) ** 2) / (2 * s2) - 0.5 for u in (a, b)]
        share = (sum(kl) / 2).clamp(0, 1).mean()
        factor = (mu_g / (mu_p + 1e-8)).view(-1, 1, 1, 1)
        edited = torch.cat([hvi_p[:, :2], (factor * hvi_p[:, 2:]).clamp(0, 1)], dim=1)
        plain, aligned = (
            literal_single(rgb, g, features, of_target) + literal_single(hvi, hvi_g, features, of_target)
            for rgb, hvi in ((p, hvi_p), (masked_hvi_to_rgb(edited, k), edited))
        )
        return share * plain + (1 - share) * aligned

    def loss(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        cache.clear()
        gt, k = batch["gt"], outputs["k"]
        hvi_gt = masked_rgb_to_hvi(gt, k)
        return gt_mean(outputs["out"], gt, hvi_gt, k) + 0.5 * gt_mean(outputs["base"], gt, hvi_gt, k)

    return loss


def our_loss(state: dict[str, Tensor], precision: str) -> Loss:
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "vgg19.pth"
        torch.save(state, weights)
        spec = {"type": "HVILoss", "gt_mean": "hvi", "preds": {"out": 1.0, "base": 0.5}}
        return create_loss({**spec, "weights": str(weights), "precision": precision})


VARIANTS: dict[str, Callable[[dict[str, Tensor]], Loss]] = {
    "literal": lambda state: literal_loss(state, share_targets=False),
    "literal, targets shared": lambda state: literal_loss(state, share_targets=True),
    "ours": lambda state: our_loss(state, "float32"),
    "ours, VGG in bfloat16": lambda state: our_loss(state, "bfloat16"),
}


def random_vgg() -> dict[str, Tensor]:
    state, channels, width = {}, 3, 64
    for index, name in enumerate(layer_names("vgg19")):
        if name.startswith("conv"):
            state[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
            state[f"features.{index}.bias"] = torch.zeros(width)
            channels = width
        elif name.startswith("pool"):
            width = min(2 * width, 512)
    return state


def make_step(loss: Loss, network: nn.Module, low: Tensor, ratio: float) -> Callable[[], float]:
    """A training step against a reference that is `ratio` times as bright as the output of the network."""
    with torch.no_grad():
        outputs = network(low)
        brightness = rgb_to_hvi(outputs["out"], outputs["k"])[:, 2].mean()
    gt = torch.rand(low.shape, generator=torch.Generator().manual_seed(0))
    gt = gt * ratio * brightness / gt.amax(1).mean()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.0)  # so that the brightness does not change

    def step() -> float:
        optimiser.zero_grad()
        value = loss(network(low), {"gt": gt})
        value.backward()
        optimiser.step()
        return float(value.detach())

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--ratio", type=float, help="reference brightness over output brightness, instead of 1.6 and 1.15"
    )
    parser.add_argument("--peak", choices=VARIANTS, help="only print the peak memory of this variant, in MiB")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    for ratio in (arguments.ratio,) if arguments.ratio else (1.6, 1.15):
        names = [arguments.peak] if arguments.peak else list(VARIANTS)
        steps = {}
        for name in names:
            torch.manual_seed(0)
            low = torch.rand(arguments.batch, 3, *arguments.size) * 0.3
            network = HVISMM().train()
            loss = VARIANTS[name](random_vgg())
            if name.startswith("literal"):
                network = literal_network(network.state_dict())
            steps[name] = make_step(loss, network, low, ratio)
        values = {name: step() for name, step in steps.items()}
        if arguments.peak:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
            return
        assert abs(values["ours"] / values["literal"] - 1) < 1e-4, values
        meaning = "W = 1" if ratio > 1.33 else "W < 1"
        size = f"{arguments.batch}x3x{arguments.size[0]}x{arguments.size[1]}"
        report(f"Training step of HVI-SMM, {size}, {meaning}", compare(steps, arguments.rounds))
        for name in names:
            command = [sys.executable, *sys.argv, "--ratio", str(ratio), "--peak", name]
            peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            print(f"  {name:<28} {peak} MiB peak")


if __name__ == "__main__":
    main()
