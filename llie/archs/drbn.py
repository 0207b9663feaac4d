"""DRBN: four recursions over three scales, trained for fidelity, then a recomposition of the bands for visual quality.

Yang et al., "From Fidelity to Perceptual Quality: A Semi-Supervised Approach for Low-Light Image Enhancement",
CVPR 2020, https://doi.org/10.1109/CVPR42600.2020.00313. Parameter names are nearly those of the official checkpoints.
There is no normalisation layer and no clamp, so results may leave [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.archs.card import Card
from llie.errors import UserError
from llie.ops import dense_block, pointwise
from llie.ops.dense_block import DenseBlock
from llie.ops.fusion import Function, Fusable
from llie.ops.padding import any_size, pad_to_multiple
from llie.ops.parts import as_graph, recording, rolling
from llie.ops.winograd import Conv3x3, Kernels, convolve_3x3, multiplies_bfloat16_in_tiles, pays
from llie.registry import ARCH_REGISTRY

Scales = tuple[Tensor, Tensor, Tensor]  # at full, half and quarter size


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size, or halves it with a stride of 2."""
    return Conv3x3(inputs, outputs) if stride == 1 else nn.Conv2d(inputs, outputs, 3, stride, padding=1)


def enlarge(image: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) enlarged by a whole factor, bilinearly."""
    return F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)


def add(total: Tensor, *others: Tensor | None) -> Tensor:
    """`total` with all others added to it, in place."""
    for other in others:
        total = total if other is None else total.add_(other)
    return total


class RDB(Fusable):
    """Residual dense block: every layer reads the input and the maps of all layers before it."""

    def __init__(self, width: int, growth: int, convs: int):
        super().__init__()
        self.channels = [width] + convs * [growth]  # of the input and of each layer's map
        self.convs = nn.ModuleList(conv3x3(width + c * growth, growth) for c in range(convs))
        self.LFF = nn.Conv2d(width + convs * growth, width, 1)

    # A layer convolves the concatenation of all earlier maps. This is a sum over maps, so each map is convolved once,
    # for all layers that read it, instead of being copied for each of them.

    def kernels(self) -> list[Tensor]:
        """For the input and the map of each layer but the last: of all layers that read it."""
        layers: Any = self.convs
        parts = [layer.weight.split(self.channels[: c + 1], dim=1) for c, layer in enumerate(layers)]
        return [torch.cat([part[c] for part in parts[c:]]) for c in range(len(layers))]

    def biases(self) -> Tensor:
        """Of all layers, one after another."""
        layers: Any = self.convs
        return torch.cat([layer.bias for layer in layers])

    def plain(self, x: Tensor, *others: Tensor | None) -> Tensor:
        """X (B, width, H, W) -> the same shape, with all others added to it."""
        growth = self.channels[1]
        first, *kernels = self.kernels()
        sums = convolve_3x3(x, first, self.biases())
        maps = [F.relu(sums[:, :growth])]
        for kernel in kernels:
            sums = convolve_3x3(maps[-1], kernel).add_(sums[:, growth:])
            maps.append(F.relu(sums[:, :growth]))
        return add(self.LFF(torch.cat([x, *maps], dim=1)), x, *others)

    def fused(self) -> Function:
        """The same in one step, where the kernels in C can do it: a few rows at a time go through all layers."""
        if not pointwise.works() or not dense_block.works() or self.channels[0] < 8 or self.channels[1] % 8:
            return self.plain
        kernels = [Kernels(kernel) for kernel in self.kernels()]
        fusion = pointwise.Pointwise(self.LFF.weight, self.LFF.bias, self.channels)
        block = DenseBlock(kernels, self.biases(), fusion, *self.channels[:2])

        def run(x: Tensor, *others: Tensor | None) -> Tensor:
            if torch.is_autocast_enabled("cpu") and not multiplies_bfloat16_in_tiles():
                # Products are in float32 in any case; so are maps, because layers of few channels are slow in bfloat16.
                dtype = torch.get_autocast_dtype("cpu")
                with torch.autocast("cpu", enabled=False):
                    return run(x.float(), *(None if other is None else other.float() for other in others)).to(dtype)
            if not block.fits(x) or not pays(x, kernels[0].weight):
                return self.plain(x, *others)
            return block(x, *(other for other in others if other is not None))

        run.block = block  # type: ignore[attr-defined]
        return run

    def run_fused(self, fast: Function, x: Tensor, *others: Tensor | None) -> Tensor:
        """See the base class; strips have a form of their own, if it fits, and other graphs see each layer."""
        block = getattr(fast, "block", None)
        if recording() and block is not None and block.fits(x):
            maps = [x, *(other for other in others if other is not None)]
            halo, beside = block.layers, len(maps) - 1
            return rolling(fast, *maps, like=self.plain, halo=halo, begin=block.begin, beside=beside)
        return self.plain(x, *others) if as_graph() else fast(x, *others)


class ToImage(nn.Sequential):
    """Two convolutions of a map; the result at the next smaller size is added to theirs."""

    def __init__(self, inputs: int, width: int):
        super().__init__(Conv3x3(inputs, width), Conv3x3(width, 3))

    def forward(self, x: Tensor, enlarged: Tensor | None = None) -> Tensor:
        """(B, inputs, H, W) -> (B, 3, H, W), plus `enlarged`, if given."""
        first, last = self
        return last(first(x), added=enlarged)


class Recursion(nn.Module):
    """One pass through the scales: image and last result -> a result at each scale, and features for the next pass."""

    def __init__(self, width: int, growth: int, convs: int):
        super().__init__()
        deep = 2 * width  # at quarter size everything is twice as wide
        self.SFENet1, self.SFENet2 = conv3x3(6, width), conv3x3(width, width)
        self.RDBs = nn.ModuleList(
            RDB(width * wider, growth * wider, convs)
            for wider in (1, 1, 2, 2, 1, 1)  # down: full, half; bottom: quarter, quarter; up: half, full
        )
        self.Down1, self.Down2 = conv3x3(width, width, stride=2), conv3x3(width, deep, stride=2)
        self.Up2 = nn.ConvTranspose2d(deep, width, 4, stride=2, padding=1)
        self.Up1 = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.UPNet4 = ToImage(deep, width)
        self.UPNet2 = ToImage(width, width)
        self.UPNet = ToImage(width, width)

    def forward(self, images: Tensor, last: Scales | None) -> tuple[Scales, Scales]:
        """Images (B, 6, H, W), features of the last recursion -> results (B, 3, ...), features (B, width.., ...)."""
        down1, down2, bottom1, bottom2, up2, up1 = self.RDBs
        stem = self.SFENet1(images, relu=True)
        f1 = self.SFENet2(stem, relu=True)
        f2 = self.Down1(down1(f1))
        f4 = self.Down2(down2(f2))

        last1, last2, last4 = last or (None, None, None)
        f4 = bottom2(bottom1(f4), f4, last4)
        f2 = up2(self.Up2(f4), f2, last2)
        f1 = up1(self.Up1(f2), f1, stem, last1)

        r4 = self.UPNet4(f4)
        r2 = self.UPNet2(f2, enlarge(r4, 2))
        r1 = self.UPNet(f1, enlarge(r2, 2))
        return (r1, r2, r4), (f1, f2, f4)


def _without_sequential(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names -> ours: officially, a layer of a dense block is a sequence of convolution and ReLU."""
    return {key.replace(".conv.0.", "."): value for key, value in state.items()}


def _widths(state: Mapping[str, Tensor], part: str) -> dict[str, Any]:
    """Constructor arguments, from the first dense block below `part`."""
    block = f"{part}RDBs.0."
    growth, width = state[f"{block}convs.0.weight"].shape[:2]
    return {"width": width, "growth": growth, "convs": sum(key.startswith(f"{block}convs.") for key in state) // 2}


def _recursions(state: Mapping[str, Tensor], part: str = "") -> int:
    return sum(key.startswith(f"{part}recur") and key.endswith(".SFENet1.weight") for key in state)


def _detect_drbn(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    if "recur1.UPNet4.0.weight" not in state:
        return None
    return _widths(state, "recur1.") | {"recursions": _recursions(state)}


@ARCH_REGISTRY.register()
class DRBN(nn.Module):
    """Stage 1 of DRBN: every recursion corrects the result of the one before it. The defaults are as published.

    Args:
        width: channels at full and half size; at quarter size twice as many.
        growth: channels that each layer of a dense block adds; at quarter size twice as many.
        convs: layers of a dense block.
        recursions: passes through the scales; they do not share weights.
    """

    card = Card(
        paper="From Fidelity to Perceptual Quality: A Semi-Supervised Approach for Low-Light Image Enhancement, "
        "CVPR 2020",
        url="https://doi.org/10.1109/CVPR42600.2020.00313",
        size_multiple=4,
        official_keys=_without_sequential,
        detect=_detect_drbn,
        blocks=r"recur\d+",
    )

    def __init__(self, width: int = 16, growth: int = 8, convs: int = 4, recursions: int = 4):
        super().__init__()
        for name, value in (("width", width), ("growth", growth), ("convs", convs), ("recursions", recursions)):
            if value < 1:
                raise UserError(f"DRBN: {name} must be at least 1, not {value}")
        for number in range(1, recursions + 1):
            recursion = Recursion(width, growth, convs)
            # Training starts from grey: SSIM is the same if a channel and its reference both change sign, so a channel
            # that starts below zero would learn the negative of the image and never recover.
            nn.init.constant_(recursion.UPNet4[1].bias, 0.5)  # type: ignore[arg-type]
            self.add_module(f"recur{number}", recursion)

    def scales(self, x: Tensor) -> Scales:
        """X (B, 3, H, W) with sizes that are multiples of 4 -> results at full, half and quarter size."""
        x = x.contiguous(memory_format=torch.channels_last)  # faster on CPUs for layers with few channels
        features = None
        result = x
        for recursion in self.children():
            scales, features = recursion(torch.cat([result, x], dim=1), features)
            result = scales[0]
        return scales

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """X (B, 3, H, W) in [0, 1], any size -> the enhanced image, same shape, not clamped.

        In training the output is a dict with the coarser results, too: "half" and "quarter" correspond to every second
        and every fourth row and column of the reference.
        """
        result, half, quarter = self.scales(pad_to_multiple(x, 4))
        height, width = x.shape[-2:]
        out = result[..., :height, :width]
        if not self.training:
            return out
        half = half[..., : math.ceil(height / 2), : math.ceil(width / 2)]
        quarter = quarter[..., : math.ceil(height / 4), : math.ceil(width / 4)]
        return {"out": out, "half": half, "quarter": quarter}


class Recompose(nn.Module):
    """Recombines three frequency bands, with a weight for each pixel, channel and band."""

    def __init__(self, width: int, growth: int, convs: int):
        super().__init__()
        self.SFENet1, self.SFENet2 = conv3x3(12, width), conv3x3(width, width)
        self.RDBs = nn.ModuleList([RDB(width, growth, convs)])
        self.GFF = nn.Sequential(nn.Conv2d(width, width, 1), conv3x3(width, width))
        self.UPNet, self.UPNet2 = conv3x3(width, width), conv3x3(width, 9)

    def forward(self, x: Tensor, coarse: Tensor, middle: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """All (B, 3, H, W): the dark image, and the results of stage 1 enlarged from quarter, half and full size.

        Returns:
            The recomposed image (B, 3, H, W), and the weights (B, 9, H, W), which are not bounded.
        """
        bands = torch.cat([coarse, middle - coarse, fine - middle], dim=1)
        shallow = self.SFENet1(torch.cat([x, bands], dim=1))
        deep = shallow + self.GFF(self.RDBs[0](self.SFENet2(shallow)))
        weights = 0.8 * self.UPNet2(self.UPNet(deep)) + 0.6
        return (bands * weights).unflatten(1, (3, 3)).sum(1), weights


def _parts_of_recompose(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official weights of one stage or both, under the names of the whole network."""
    of_stage1 = {f"recur{number}" for number in range(1, _recursions(state) + 1)}
    of_recompose = {"SFENet1", "SFENet2", "RDBs", "GFF", "UPNet", "UPNet2"}

    def part(key: str) -> str:
        first = key.split(".")[0]
        return "stage1." if first in of_stage1 else "recompose." if first in of_recompose else ""

    return {part(key) + key: value for key, value in _without_sequential(state).items()}


def _detect_recompose(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    if "recompose.GFF.0.weight" not in state:
        return None
    recursions = _recursions(state, "stage1.")
    return _widths(state, "recompose.") | ({"recursions": recursions} if recursions else {})


@ARCH_REGISTRY.register()
class DRBNRecompose(nn.Module):
    """Both stages of DRBN. The first is frozen: training needs its weights, but changes only the recomposition.

    Args:
        width: see `DRBN`; the recomposition has the same.
        growth: see `DRBN`.
        convs: see `DRBN`.
        recursions: see `DRBN`.
    """

    card = Card(
        paper=DRBN.card.paper + " (stage 2)",
        url=DRBN.card.url,
        size_multiple=4,
        parts=("stage1", "recompose"),
        blocks=r"recompose\.RDBs\.0",
        official_keys=_parts_of_recompose,
        detect=_detect_recompose,
    )

    def __init__(self, width: int = 16, growth: int = 8, convs: int = 4, recursions: int = 4):
        super().__init__()
        self.stage1 = DRBN(width, growth, convs, recursions).requires_grad_(False)
        self.recompose = Recompose(width, growth, convs)

    @any_size(4)
    def forward(self, x: Tensor) -> Tensor:
        """X (B, 3, H, W) in [0, 1], any size -> the recomposed image, same shape, not clamped."""
        with torch.no_grad():
            fine, half, quarter = self.stage1.scales(x)
            middle, coarse = enlarge(half, 2), enlarge(quarter, 4)
        return self.recompose(x, coarse, middle, fine)[0]
