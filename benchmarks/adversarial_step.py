"""A training step of DRBN's second stage: ours against a literal implementation of the step.

python benchmarks/adversarial_step.py [--size 128] [--batch 2] [--threads 1] [--rounds 5]

A step is the discriminator's loss, backward and Adam, then the generator's. In the literal step, gradients flow into
both stages of the generator, also from the discriminator's loss; those that no optimiser needs are discarded. The first
four convolutions of VGG16 have random weights, which take as much time as the trained ones.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from literal_drbn import DenseBlock, LiteralDRBN, conv, up2x
from literal_losses import literal_ssim
from timing import compare, report
from torch import Tensor, nn

from llie.models.adversarial import AdversarialModel
from llie.options import load_options

OPTIONS = Path(__file__).parents[1] / "options" / "train" / "drbn" / "stage2_LOL.yml"
CONVOLUTIONS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128)}  # places in torchvision's VGG16
WEIGHTS = {1: 1.0, 3: 0.6, 6: 0.4, 8: 0.2}
State = dict[str, Tensor]


class LiteralRecompose(nn.Module):
    """Recombines the bands of stage 1."""

    def __init__(self) -> None:
        super().__init__()
        self.SFENet1, self.SFENet2 = conv(12, 16), conv(16, 16)
        self.RDBs = nn.ModuleList([DenseBlock(16, 8)])
        self.GFF = nn.Sequential(nn.Conv2d(16, 16, 1), conv(16, 16))
        self.UPNet, self.UPNet2 = conv(16, 16), conv(16, 9)

    def forward(self, x: Tensor, b0: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
        s0, s1, s2 = b0, b1 - b0, b2 - b1
        e = self.SFENet1(torch.cat([x, s0, s1, s2], 1))
        y = e + self.GFF(self.RDBs[0](self.SFENet2(e)))
        w1, w2, w3 = (0.8 * self.UPNet2(self.UPNet(y)) + 0.6).chunk(3, 1)
        return s0 * w1 + s1 * w2 + s2 * w3


class LiteralGenerator(nn.Module):
    """Both stages, with the names of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1, self.recompose = LiteralDRBN(), LiteralRecompose()

    def forward(self, x: Tensor) -> Tensor:
        r1, r2, r4 = self.stage1(x)
        b0 = F.interpolate(r4, scale_factor=4, mode="bilinear", align_corners=False)
        return self.recompose(x, b0, up2x(r2), r1)


def literal_perceptual(g: Tensor, y: Tensor, state: State) -> Tensor:
    def features(x: Tensor) -> list[Tensor]:
        found = []
        for index in range(9):
            if index in CONVOLUTIONS:
                x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
            else:
                x = F.max_pool2d(x, 2) if index == 4 else F.relu(x)
            found.append(x)
        return found

    found, wanted = features(g), features(y)
    return sum(weight * F.mse_loss(found[index], wanted[index]) for index, weight in WEIGHTS.items())


def literal_step(model: AdversarialModel, batch: dict[str, Tensor], vgg: State) -> Callable[[], tuple[Tensor, Tensor]]:
    """The literal step: nothing is shared, detached or left out."""
    g, d = LiteralGenerator(), copy.deepcopy(model.networks["d"])
    g.load_state_dict(model.networks["g"].state_dict())
    of_g, of_d = torch.optim.Adam(g.recompose.parameters(), 1e-4), torch.optim.Adam(d.parameters(), 1e-6)
    count = len(batch["lq"])

    def step() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        enhanced, real_enhanced = g(batch["lq"]), g(batch["lq_real"])
        scores = d(torch.cat([batch["gt"], batch["hq"]]))
        real = 0.7 + 0.5 * torch.rand(2 * count, 1)
        judged = F.mse_loss(scores, real) + F.mse_loss(d(real_enhanced), 0.3 * torch.rand(count, 1))
        of_d.zero_grad()
        judged.backward(retain_graph=True)
        of_d.step()
        of_g.zero_grad()
        adversarial = F.mse_loss(d(real_enhanced), torch.ones(count, 1))
        loss = literal_perceptual(enhanced, batch["gt"], vgg) + literal_ssim(enhanced, batch["gt"]) + 2 * adversarial
        loss.backward()
        of_g.step()
        return judged.detach(), loss.detach()

    return step


def our_step(model: AdversarialModel, batch: dict[str, Tensor], share: bool) -> Callable[[], tuple[Tensor, Tensor]]:
    model = copy.deepcopy(model)
    model.may_share = share
    trained = {name: [p for p in network.parameters() if p.requires_grad] for name, network in model.networks.items()}
    optimisers = {name: torch.optim.Adam(trained[name], rate) for name, rate in (("g", 1e-4), ("d", 1e-6))}

    def step() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        losses = []
        for phase in model.phases(1):
            loss, _ = model.loss(phase, batch)
            loss.backward()
            optimisers[phase].step()
            optimisers[phase].zero_grad()
            losses.append(loss.detach())
        return losses[0], losses[1]

    return step


def build_model(vgg: State) -> AdversarialModel:
    with tempfile.TemporaryDirectory() as folder:
        options = load_options(OPTIONS)
        torch.save(vgg, Path(folder) / "vgg16.pth")
        options["train"]["losses"][0]["weights"] = str(Path(folder) / "vgg16.pth")
        torch.save(LiteralDRBN().state_dict(), Path(folder) / "stage1.pth")
        options["path"]["pretrain_network_g"] = str(Path(folder) / "stage1.pth")
        return AdversarialModel(options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    vgg = {}
    for index, (inputs, outputs) in CONVOLUTIONS.items():
        vgg[f"features.{index}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        vgg[f"features.{index}.bias"] = torch.zeros(outputs)
    model = build_model(vgg)
    shape = (arguments.batch, 3, arguments.size, arguments.size)
    batch = {
        name: torch.rand(shape) * bright for name, bright in (("lq", 0.2), ("gt", 0.9), ("lq_real", 0.2), ("hq", 1))
    }
    steps = {
        "literal": literal_step(model, batch, vgg),
        "ours, enhancing twice": our_step(model, batch, share=False),
        "ours": our_step(model, batch, share=True),
    }
    for judged, enhanced in (steps[name]() for name in list(steps)[1:]):
        expected = literal_step(model, batch, vgg)()
        torch.testing.assert_close((judged, enhanced), expected, rtol=1e-3, atol=1e-4)
    report(f"DRBN stage 2, batch {arguments.batch} of {arguments.size}", compare(steps, arguments.rounds))


if __name__ == "__main__":
    main()
