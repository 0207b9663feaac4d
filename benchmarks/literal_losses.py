"""Literal implementations of the recipes' losses: baselines of training steps. Nothing is shared or left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from hvi_transform import masked_hvi_to_rgb, masked_rgb_to_hvi
from literal_zero_dce import literal_zero_dce_loss
from torch import Tensor

from llie.losses.vgg import layer_names

State = dict[str, Tensor]
Tensors = Mapping[str, Tensor]  # the outputs of a network, or a batch

HVI_LAYERS = ("conv1_2", "conv2_2", "conv3_4", "conv4_4")
HDM_LAYERS = ("relu1_2", "relu2_2", "relu3_3")
LFPV_LAYERS = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1.0}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
BINOMIAL = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05])
GAUSSIAN = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2))


def random_vgg(name: str) -> State:
    """Weights of VGG16 or VGG19 in torchvision's names; random ones cost as much as trained ones."""
    state, channels, width = {}, 3, 64
    for index, layer in enumerate(layer_names(name)):
        if layer.startswith("conv"):
            state[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
            state[f"features.{index}.bias"] = torch.zeros(width)
            channels = width
        elif layer.startswith("pool"):
            width = min(2 * width, 512)
    return state


def features(x: Tensor, name: str, state: State, layers: Sequence[str]) -> list[Tensor]:
    found = []
    for index, layer in enumerate(layer_names(name)):
        if layer.startswith("conv"):
            x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        else:
            x = F.relu(x) if layer.startswith("relu") else F.max_pool2d(x, 2)
        if layer in layers:
            found.append(x)
        if layer == layers[-1]:
            break
    return found


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


def charbonnier(p: Tensor, g: Tensor) -> Tensor:
    return ((p - g) ** 2 + 1e-6).sqrt().sum()


def hvi_loss(outputs: Tensors, batch: Tensors, vgg: State) -> Tensor:
    """HVI-CIDNet's loss, or HVI-SMM's where there is a base image; each pair is computed on its own."""

    def normal(x: Tensor) -> Tensor:
        return ((x + 1) / 2 - MEAN) / STD

    def single(p: Tensor, g: Tensor) -> Tensor:
        edge = F.mse_loss(literal_laplacian(p), literal_laplacian(g))
        with torch.no_grad():
            wanted = features(normal(g), "vgg19", vgg, HVI_LAYERS)
        found = features(normal(p), "vgg19", vgg, HVI_LAYERS)
        perceptual = sum(F.mse_loss(a, b) for a, b in zip(found, wanted, strict=True))
        return F.l1_loss(p, g) + 0.5 * literal_ssim(p, g) + 50 * edge + 0.01 * perceptual

    gt, k = batch["gt"], outputs["k"]
    hvi_gt = masked_rgb_to_hvi(gt, k)

    def aligned(p: Tensor) -> Tensor:
        hvi_p = masked_rgb_to_hvi(p, k)
        mu_p, mu_g = hvi_p[:, 2].mean((1, 2)), hvi_gt[:, 2].mean((1, 2))
        a, b = mu_g.abs() + 1e-8, mu_p.abs() + 1e-8
        middle, s2 = (a + b) / 2, ((0.1 * a) ** 2 + (0.1 * b) ** 2) / 2
        kl = [torch.log(s2.sqrt() / (0.1 * u)) + ((0.1 * u) ** 2 + (u - middle) ** 2) / (2 * s2) - 0.5 for u in (a, b)]
        share = (sum(kl) / 2).clamp(0, 1).mean()
        factor = (mu_g / (mu_p + 1e-8)).view(-1, 1, 1, 1)
        edited = torch.cat([hvi_p[:, :2], (factor * hvi_p[:, 2:]).clamp(0, 1)], dim=1)
        plain = single(p, gt) + single(hvi_p, hvi_gt)
        return share * plain + (1 - share) * (single(masked_hvi_to_rgb(edited, k), gt) + single(edited, hvi_gt))

    if "base" in outputs:
        return aligned(outputs["out"]) + 0.5 * aligned(outputs["base"])
    return single(outputs["out"], gt) + single(masked_rgb_to_hvi(outputs["out"], k), hvi_gt)


def drbn_loss(outputs: Tensors, batch: Tensors, vgg: State) -> Tensor:
    gt = batch["gt"]
    scales = ((outputs["out"], 1), (outputs["half"], 2), (outputs["quarter"], 4))
    return sum(literal_ssim(image, gt[..., ::stride, ::stride]) for image, stride in scales)


def hdm_loss(outputs: Tensors, batch: Tensors, vgg: State) -> Tensor:
    found, wanted = (features(image, "vgg16", vgg, HDM_LAYERS) for image in (outputs["out"], batch["gt"]))
    perceptual = sum(F.mse_loss(a, b) for a, b in zip(found, wanted, strict=True)) / 3
    return F.l1_loss(outputs["out"], batch["gt"]) + 0.04 * perceptual


def lfpv_loss(outputs: Tensors, batch: Tensors, vgg: State) -> Tensor:
    plain, gt = outputs["plain"], batch["gt"]
    found, wanted = (features(image, "vgg19", vgg, list(LFPV_LAYERS)) for image in (plain, gt))
    terms = zip(found, wanted, LFPV_LAYERS.values(), strict=True)
    perceptual = sum(weight * (a - b.detach()).abs().sum() for a, b, weight in terms)
    return charbonnier(outputs["out"], gt) + charbonnier(plain, gt) + 0.1 * perceptual


LOSSES: dict[str, Callable[[Tensors, Tensors, State], Tensor]] = {
    "HVISMM": hvi_loss,
    "HVICIDNet": hvi_loss,
    "SNRAware": lambda outputs, batch, vgg: charbonnier(outputs["out"], batch["gt"]),
    "LFPV": lfpv_loss,
    "DRBN": drbn_loss,
    "HDM": hdm_loss,
    "MambaLLIE": lambda outputs, batch, vgg: F.l1_loss(outputs["out"], batch["gt"]),
    "ZeroDCE": lambda outputs, batch, vgg: literal_zero_dce_loss(outputs["out"], outputs["curves"], batch["lq"]),
}
