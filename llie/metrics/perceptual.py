"""LPIPS, the learned perceptual distance, through the `lpips` package; its backbone is looked up, never downloaded."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import torch

from llie.errors import UserError
from llie.metrics.images import Image, Pixels
from llie.metrics.metric import mean_over_pairs, register_metric
from llie.weights import find_weights, read_checkpoint

BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


class MissingWeights(UserError):
    """The weights a metric computes with are not on this machine."""


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
    """Learned perceptual image patch similarity v0.1 (Zhang et al., CVPR 2018); 0 is equal, lower is better.

    Args:
        pred: see `psnr`; a tensor on a GPU is measured there.
        gt: see `psnr`.
        protocol: one on RGB; see `psnr`.
        net: backbone, `alex` (HVI-CIDNet and most of the field) or `vgg` (LOL-Blur tables). Not comparable.
        weights: the backbone's ImageNet weights as torchvision publishes them: file, or folder that holds it.
            By default looked for in the folder `$LLIE_WEIGHTS` and in torch hub's cache.
        crop_border: see `psnr`.
        input_order: see `psnr`.

    Raises:
        MissingWeights: the backbone's weights are nowhere; the message says what to put where.
        UserError: as `psnr`.
    """
    if net not in BACKBONES:
        raise UserError(f"lpips: net must be one of {', '.join(BACKBONES)}, not {net!r}")
    device = pred.device if isinstance(pred, torch.Tensor) else torch.device("cpu")
    network = _network(net, _backbone_file(net, weights)).to(device)

    def distance(p: Pixels, g: Pixels) -> float:
        if p.shape[-1] != 3:
            raise UserError("lpips measures colour images; use a protocol on RGB")
        p_input, g_input = (
            torch.from_numpy(image / 127.5 - 1).permute(2, 0, 1)[None].to(device, torch.float32) for image in (p, g)
        )
        with torch.no_grad():
            return float(network(p_input, g_input))

    return mean_over_pairs(distance, pred, gt, protocol, crop_border, input_order=input_order)


def _backbone_file(net: str, weights: str | Path | None) -> Path:
    filename = BACKBONES[net]
    path = find_weights(filename, weights)
    if path is None:
        prefix = filename.removesuffix(".pth").rsplit("-", 1)[-1]
        raise MissingWeights(
            f"lpips ({net}) needs the file {filename} (its sha256 begins with {prefix}) from torchvision; put it into "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'} or the folder $LLIE_WEIGHTS, or name it as weights: PATH"
        )
    return path


@functools.lru_cache(maxsize=2)
def _network(net: str, backbone: Path) -> torch.nn.Module:
    """The package's network with its own linear heads; `pnet_rand` keeps it from downloading the backbone."""
    import lpips as package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses a spelling that torchvision has deprecated
        network = package.LPIPS(net=net, pnet_rand=True, verbose=False).requires_grad_(False)
    published = read_checkpoint(backbone)
    own = network.net.state_dict()
    # "slice2.3.weight" of the package is "features.3.weight" of torchvision; the classifier is not used.
    names = {key: "features." + key.split(".", 1)[1] for key in own}
    missing = [name for name in names.values() if name not in published]
    if missing:
        raise UserError(f"{backbone} is not torchvision's {BACKBONES[net]}: it has no {missing[0]}")
    network.net.load_state_dict({key: published[name] for key, name in names.items()})
    return network
