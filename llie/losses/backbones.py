"""Frozen backbones of perceptual losses: found on this machine or downloaded, never trained, never saved."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from llie.errors import UserError
from llie.weights import NotFetched, fetch, find_weights, read_checkpoint, state_dict_of

URL = "https://download.pytorch.org/models/"
# torchvision's ImageNet weights; each name contains the first digits of the file's SHA-256.
FILES = {
    "vgg16": "vgg16-397923af.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "alexnet": "alexnet-owt-7be5be79.pth",
    "squeezenet": "squeezenet1_1-b8a52dc0.pth",
}


def backbone_state(name: str, option: str | Path | None, needed_by: str) -> dict[str, Tensor]:
    """The state dict of a backbone, with torchvision's key names.

    Args:
        name: a key of `FILES`.
        option: the `weights` option: a file or a folder. None searches `$LLIE_WEIGHTS` and torch hub's cache; a file
            that is in neither is downloaded into the cache, unless `LLIE_OFFLINE` is set.
        needed_by: what needs the weights, for the error message.

    Raises:
        UserError: the file is missing and cannot be downloaded, or is not a checkpoint.
    """
    filename = FILES[name]
    try:
        path = find_weights(filename, option) or fetch(URL + filename)
    except NotFetched as reason:
        raise UserError(
            f"{needed_by} needs the ImageNet weights of {name}: download "
            f"{URL}{filename} (SHA-256 begins with {filename[-12:-4]}) "
            f"into {torch.hub.get_dir()}/checkpoints or the folder that LLIE_WEIGHTS names, "
            f"or give its path as the option 'weights' ({reason})"
        ) from None
    return state_dict_of(read_checkpoint(path))


def load_backbone(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load a network (possibly on the meta device) from a state dict that may contain more, then freeze it.

    Raises:
        UserError: a tensor is missing or has another shape; the file belongs to another network.
    """
    wanted = network.state_dict()
    wrong = [key for key, value in wanted.items() if key not in state or state[key].shape != value.shape]
    if wrong:
        raise UserError(
            f"these are not the weights of {name}: {len(wrong)} of {len(wanted)} tensors are missing "
            f"or have another shape, {wrong[0]} first; expected torchvision's {FILES[name]}"
        )
    network.load_state_dict({key: state[key] for key in wanted}, assign=True)
    freeze(network)


def freeze(network: nn.Module) -> nn.Module:
    """Turn all parameters into buffers that are not saved: they move with the module, but are not trained or stored."""
    for module in network.modules():
        for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            delattr(module, name)
            module.register_buffer(name, value.detach(), persistent=False)
    return network.eval()
