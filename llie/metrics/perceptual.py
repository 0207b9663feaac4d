"""Distances between features of trained networks: LPIPS through the package `lpips`, DISTS through `torchmetrics`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from llie.errors import UserError
from llie.losses.backbones import backbone_state, freeze, load_backbone
from llie.losses.lpips import BACKBONES, lpips_network
from llie.metrics.images import Image, Pixels
from llie.metrics.metric import MetricUnavailable, mean_over_pairs, register_metric


@register_metric("lower")
def lpips(
    pred: Image,
    gt: Image,
    protocol: str = "rgb8",
    net: str = "alex",
    weights: str | Path | None = None,
    crop_border: int = 0,
    input_order: str = "HWC",
) -> float:
    """Learned perceptual image patch similarity v0.1 (Zhang et al., CVPR 2018); 0 means equal, lower is better.

    Args:
        pred: see `psnr`; a tensor on a GPU is measured there.
        gt: see `psnr`.
        protocol: one on RGB; see `psnr`.
        net: backbone: `alex` (HVI-CIDNet and most papers), `vgg` (LOL-Blur tables) or `squeeze`. Figures of different
            backbones are not comparable.
        weights: torchvision's ImageNet weights of the backbone: a file or its folder. By default searched in the folder
            `$LLIE_WEIGHTS` and in torch hub's cache, or else downloaded.
        crop_border: see `psnr`.
        input_order: see `psnr`.

    Raises:
        MetricUnavailable: the backbone's weights are missing; the message says which file to put where.
        UserError: as `psnr`; an unknown backbone; the file named by `weights` does not fit.
    """
    network = _lpips_network(net, weights)
    return _mean_distance("lpips", network, pred, gt, protocol, crop_border, input_order, normalize=True)


@register_metric("lower")
def dists(
    pred: Image,
    gt: Image,
    protocol: str = "rgb8",
    weights: str | Path | None = None,
    crop_border: int = 0,
    input_order: str = "HWC",
) -> float:
    """Deep image structure and texture similarity (Ding et al., TPAMI 2020); 0 means equal, lower is better.

    The images keep their size. The authors' script can shrink them to 256 pixels at the shorter side, and the package
    `piq` does so; such figures are not comparable.

    Args:
        pred: see `psnr`; a tensor on a GPU is measured there.
        gt: see `psnr`.
        protocol: one on RGB; see `psnr`.
        weights: torchvision's ImageNet weights of VGG16; see `lpips`.
        crop_border: see `psnr`.
        input_order: see `psnr`.

    Raises:
        MetricUnavailable: VGG16's weights or the package torchmetrics are missing; the message says how to get them.
        UserError: as `psnr`; the file named by `weights` does not fit.
    """
    return _mean_distance("dists", _dists_network(weights), pred, gt, protocol, crop_border, input_order)


def _mean_distance(
    name: str,
    network: nn.Module,
    pred: Image,
    gt: Image,
    protocol: str,
    crop_border: int,
    input_order: str,
    **arguments: Any,
) -> float:
    """Mean over a batch of a network's distance between images (1, 3, H, W) in [0, 1], on the device of `pred`."""
    device = pred.device if isinstance(pred, torch.Tensor) else torch.device("cpu")
    network.to(device)

    def as_input(image: Pixels) -> torch.Tensor:
        if image.shape[-1] != 3:
            raise UserError(f"{name} measures colour images; use a protocol on RGB")
        return torch.from_numpy(image / 255).permute(2, 0, 1)[None].to(device, torch.float32)

    def distance(p: Pixels, g: Pixels) -> float:
        with torch.no_grad():
            return float(network(as_input(p), as_input(g), **arguments))

    return mean_over_pairs(distance, pred, gt, protocol, crop_border, input_order=input_order)


@functools.lru_cache(maxsize=2)
def _lpips_network(net: str, weights: str | Path | None) -> nn.Module:
    try:
        return lpips_network(net, None if weights is None else str(weights))
    except UserError as error:
        if weights is not None or net not in BACKBONES:
            raise  # what the option file names is wrong; only what a machine lacks may be left out
        raise MetricUnavailable(str(error)) from None


@functools.lru_cache(maxsize=1)
def _dists_network(weights: str | Path | None) -> nn.Module:
    try:
        import torchmetrics.functional.image.dists as package  # takes seconds
    except ImportError:
        raise MetricUnavailable("dists needs the package torchmetrics: pip install 'llie[metrics]'") from None
    import torchvision

    try:
        state = backbone_state("vgg16", weights, needed_by="DISTS")
    except UserError as error:
        if weights is not None:
            raise
        raise MetricUnavailable(str(error)) from None
    with torch.device("meta"):
        vgg = nn.ModuleDict({"features": torchvision.models.vgg16().features})
    load_backbone(vgg, state, "vgg16")
    # The package has no argument for the backbone; left alone, it downloads it even where LLIE_OFFLINE forbids that.
    with patch.object(package, "vgg16", lambda weights: vgg):
        return freeze(package.DISTSNetwork())
