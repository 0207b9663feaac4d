"""VGG features (Simonyan and Zisserman, ICLR 2015) at named layers, with fixed ImageNet weights."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from llie.errors import UserError, suggest
from llie.losses.backbones import backbone_state, load_backbone
from llie.losses.base import check_choice
from llie.ops.winograd import Kernels, pays, winograd

CHANNELS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def layer_names(vgg_type: str) -> list[str]:
    """All layers in the order of torchvision's `features`: conv1_1, relu1_1, ... pool5."""
    names = []
    for block, count in enumerate(CONVOLUTIONS[vgg_type], start=1):
        for number in range(1, count + 1):
            names += [f"conv{block}_{number}", f"relu{block}_{number}"]
        names.append(f"pool{block}")
    return names


class VGGFeatures(nn.Module):
    """Features of RGB images at given layers of VGG16 or VGG19.

    Args:
        layers: names such as "conv3_4" (before the ReLU), "relu3_4" (after it), "pool3".
        vgg_type: "vgg16" or "vgg19".
        use_input_norm: subtract ImageNet's mean and divide by its standard deviation.
        range_norm: map [-1, 1] to [0, 1] first.
        weights: file with torchvision's weights, or its folder; None searches the usual folders.
        precision: "float32"; or "bfloat16" for the convolutions, several times faster where the hardware supports it.

    Raises:
        UserError: an unknown layer, network or precision, or missing weights.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        layers: Collection[str],
        vgg_type: str = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        weights: str | Path | None = None,
        precision: str = "float32",
    ):
        super().__init__()
        check_choice("vgg_type", vgg_type, tuple(CONVOLUTIONS))
        check_choice("precision", precision, ("float32", "bfloat16"))
        names = layer_names(vgg_type)
        unknown = [layer for layer in layers if layer not in names]
        if unknown or not layers:
            bad = (
                f"{vgg_type} has no layer {unknown[0]!r}.{suggest(unknown[0], names)}"
                if unknown
                else "no layer is given."
            )
            raise UserError(f"layer_weights: {bad} Layers are conv1_1, relu1_1, ... pool5")
        self.wanted = frozenset(layers)
        self.names = names[: max(names.index(layer) for layer in layers) + 1]

        with torch.device("meta"):
            features = nn.Sequential(*(self._layer(index) for index in range(len(self.names))))
        state = backbone_state(vgg_type, weights, needed_by="the perceptual loss")
        load_backbone(nn.ModuleDict({"features": features}), state, vgg_type)
        # On CPUs, channels last is twice as fast in bfloat16; in float32 it makes pooling twenty times as fast.
        self.features = features.to(getattr(torch, precision)).to(memory_format=torch.channels_last)
        self.kernels: dict[str, Kernels] = {}  # by layer, for `winograd`

        # range_norm and the ImageNet statistics, combined into one multiplication and one addition.
        mean = torch.tensor([0.485, 0.456, 0.406]) if use_input_norm else torch.zeros(3)
        std = torch.tensor([0.229, 0.224, 0.225]) if use_input_norm else torch.ones(3)
        scale, offset = (0.5, 0.5) if range_norm else (1.0, 0.0)
        self.register_buffer("scale", (scale / std).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", ((offset - mean) / std).view(3, 1, 1), persistent=False)

    def _layer(self, index: int) -> nn.Module:
        name = self.names[index]
        if name.startswith("pool"):
            return nn.MaxPool2d(2)
        if name.startswith("relu"):
            return nn.ReLU(inplace=self.names[index - 1] not in self.wanted)
        block, number = int(name[4]), int(name[6])
        inputs = CHANNELS[block - 1] if number > 1 else CHANNELS[block - 2] if block > 1 else 3
        return nn.Conv2d(inputs, CHANNELS[block - 1], 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features of (B, 3, H, W) by layer, (B, channels, H / 2^n, W / 2^n) each."""
        dtype = next(self.features.buffers()).dtype
        x = (images * self.scale + self.shift).to(dtype, memory_format=torch.channels_last)
        found = {}
        for name, layer in zip(self.names, self.features, strict=True):
            x = self._convolve(name, layer, x) if isinstance(layer, nn.Conv2d) and pays(x, layer.weight) else layer(x)
            if name in self.wanted:
                found[name] = x
        return found

    def _convolve(self, name: str, layer: nn.Conv2d, x: Tensor) -> Tensor:
        kernels = self.kernels.get(name)
        if kernels is None or not kernels.are_of(layer.weight):  # at the first call, and after a conversion
            kernels = self.kernels[name] = Kernels(layer.weight)
        return winograd(x, layer.weight, layer.bias, kernels)
