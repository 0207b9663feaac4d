"""LPIPS, the learned perceptual distance (Zhang et al., CVPR 2018), on torchvision's backbones."""

from __future__ import annotations

import warnings

from torch import Tensor, nn

from llie.errors import UserError
from llie.losses.backbones import backbone_state, freeze, load_backbone
from llie.losses.base import ImageLoss, check_choice
from llie.losses.perceptual import EagerGradient
from llie.registry import LOSS_REGISTRY

BACKBONES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet"}


def lpips_network(net: str = "alex", weights: str | None = None) -> nn.Module:
    """The lpips package's network, version 0.1, frozen.

    Args:
        net: "alex", "vgg" or "squeeze".
        weights: file with torchvision's backbone weights, or its folder; None searches the usual folders.

    Raises:
        UserError: an unknown network, missing weights, or the package is not installed.
    """
    check_choice("net", net, tuple(BACKBONES))
    try:
        import lpips
    except ImportError:
        raise UserError("LPIPS needs the package lpips: pip install lpips") from None
    state = backbone_state(BACKBONES[net], weights, needed_by="LPIPS")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision: `pretrained` is deprecated
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)  # random backbone: nothing is downloaded
    # The package splits torchvision's `features` into slices; the layers keep their numbers.
    sources = {key: "features." + key.split(".", 1)[1] for key in network.net.state_dict()}
    load_backbone(network.net, {key: state[name] for key, name in sources.items() if name in state}, BACKBONES[net])
    return freeze(network)


@LOSS_REGISTRY.register()
class LPIPSLoss(ImageLoss):
    """LPIPS of images in [0, 1]; 0 for equal images, about 0.7 for unrelated ones.

    Args:
        net: "alex", "vgg" or "squeeze".
        weights: file with torchvision's backbone weights, or its folder; None searches the usual folders.

    Raises:
        UserError: an unknown network, missing weights, or the package lpips is not installed.
    """

    def __init__(self, net: str = "alex", weights: str | None = None):
        super().__init__()
        self.network = lpips_network(net, weights)

    def train(self, mode: bool = True) -> LPIPSLoss:
        """Stay in evaluation mode, because the heads contain dropout."""
        return super().train(False)

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """See `ImageLoss.distance`."""
        target = target.expand_as(pred).flatten(0, -4)
        values: Tensor = EagerGradient.apply(
            pred.flatten(0, -4), lambda images: self.network(images, target, normalize=True).flatten()
        )
        return values.view(pred.shape[:-3])
