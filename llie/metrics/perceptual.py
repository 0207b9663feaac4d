"""LPIPS, the learned perceptual distance, through the `lpips` package."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from llie.errors import UserError
from llie.losses.lpips import lpips_network
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
        UserError: as `psnr`.
    """
    device = pred.device if isinstance(pred, torch.Tensor) else torch.device("cpu")
    network = _network(net, weights).to(device)

    def as_input(image: Pixels) -> torch.Tensor:
        if image.shape[-1] != 3:
            raise UserError("lpips measures colour images; use a protocol on RGB")
        return torch.from_numpy(image / 127.5 - 1).permute(2, 0, 1)[None].to(device, torch.float32)

    def distance(p: Pixels, g: Pixels) -> float:
        with torch.no_grad():
            return float(network(as_input(p), as_input(g)))

    return mean_over_pairs(distance, pred, gt, protocol, crop_border, input_order=input_order)


@functools.lru_cache(maxsize=2)
def _network(net: str, weights: str | Path | None) -> torch.nn.Module:
    try:
        return lpips_network(net, None if weights is None else str(weights))
    except UserError as error:
        raise MetricUnavailable(str(error)) from None
