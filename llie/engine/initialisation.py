"""Data-dependent initialisation: every convolution starts with outputs of mean 0 and deviation 1, also for dark images.

PyTorch's initialisation loses dark images: its random biases are larger than what the pixels contribute, and each layer
shrinks that further. Krähenbühl et al., "Data-dependent Initializations of Convolutional Neural Networks", ICLR 2016;
Salimans and Kingma, "Weight Normalization", NeurIPS 2016, section 3. Only the start changes, not the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

_LEAST_PIXELS = 64  # of an output map whose statistics mean something; smaller ones are pooled, as in channel attention
_SPREAD_OF_RESULT = 0.5  # of the references' deviation: the first results are plain, and not clipped


def standardise(network: nn.Module, lq: Tensor, gt: Tensor, inputs: Mapping[str, Any] | None = None) -> list[str]:
    """Scale the weights and shift the biases of all convolutions by the statistics of one batch.

    Each output channel of a convolution gets mean 0 and deviation 1 over the batch, in the order in which the layers
    run. The last convolution with as many channels as the references gets their means, and half their deviations.
    Layers with constant outputs (those that start at zero) and those on pooled maps keep their values.

    Args:
        network: in training mode; its weights are changed.
        lq: (B, 3, H, W), a batch of inputs.
        gt: (B, 3, H, W), their references.
        inputs: further arguments of the network.

    Returns:
        The names of the layers that were scaled, in the order in which they ran.
    """
    done: list[str] = []
    last = _last_with_channels(network, gt.shape[1], lq, inputs or {})
    with torch.no_grad(), ExitStack() as hooks:
        for name, layer in _convolutions(network).items():

            def scale(layer: Any, _: Any, output: Tensor, name: str = name) -> Tensor | None:
                if name in done or output.shape[-2] * output.shape[-1] < _LEAST_PIXELS:
                    return None
                target = (gt.mean((0, 2, 3)), _SPREAD_OF_RESULT * gt.std((0, 2, 3))) if name == last else None
                scaled = _scale(layer, output, target)
                if scaled is not None:
                    done.append(name)
                return scaled

            hooks.callback(layer.register_forward_hook(scale).remove)
        network(lq, **(inputs or {}))
    return done


def _convolutions(network: nn.Module) -> dict[str, nn.Module]:
    found = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
    return {name: m for name, m in found.items() if m.bias is not None}


def _last_with_channels(network: nn.Module, channels: int, lq: Tensor, inputs: Mapping[str, Any]) -> str | None:
    ran: list[str] = []
    with torch.no_grad(), ExitStack() as hooks:
        for name, layer in _convolutions(network).items():
            if layer.out_channels == channels:
                hook = layer.register_forward_hook(lambda *_, name=name: ran.append(name))
                hooks.callback(hook.remove)
        network(lq, **inputs)
    return ran[-1] if ran else None


def _scale(layer: Any, output: Tensor, target: tuple[Tensor, Tensor] | None) -> Tensor | None:
    mean, deviation = output.mean((0, 2, 3)), output.std((0, 2, 3))
    if not (deviation > 1e-8 * mean.abs().clamp(min=1e-8)).all():
        return None
    wanted_mean, wanted_deviation = target or (torch.zeros_like(mean), torch.ones_like(deviation))
    factor = wanted_deviation / deviation
    transposed = isinstance(layer, nn.ConvTranspose2d)  # its weights are (in, out / groups, ...)
    if transposed and layer.groups > 1:
        return None
    layer.weight.mul_(factor.view(1, -1, 1, 1) if transposed else factor.view(-1, 1, 1, 1))
    layer.bias.copy_((layer.bias - mean) * factor + wanted_mean)
    return (output - mean.view(-1, 1, 1)) * factor.view(-1, 1, 1) + wanted_mean.view(-1, 1, 1)
