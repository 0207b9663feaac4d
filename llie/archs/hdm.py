"""HDM: features guided by channel and pixel, by structure (deformable convolution), and by region (dark channel).

Liang et al., "Learning Hierarchical Dynamics with Spatial Adjacency for Image Enhancement", ACM MM 2022,
https://doi.org/10.1145/3503161.3548322. Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.archs.card import Card
from llie.errors import UserError
from llie.ops import pixel_attention
from llie.ops.constants import constant
from llie.ops.dark_channel import haze_regions
from llie.ops.deform_conv import DeformConv2d
from llie.ops.fusion import ConvChain, Fusable
from llie.ops.padding import pad_to_multiple
from llie.ops.parts import WHOLE, Ends, in_one_piece, keep, local, new_map, recording, watched
from llie.ops.region_conv import RegionConv2d, region_map
from llie.ops.winograd import Conv3x3, Kernels, convolve_3x3, pays, result_type, winograd_into
from llie.ops.winograd_matrices import Output
from llie.registry import ARCH_REGISTRY

# Statistics by which the published dehazing and deraining networks normalise their input.
MEAN, STD = (0.64, 0.6, 0.58), (0.14, 0.15, 0.152)


class ChannelAttention(nn.Module):
    """One factor for each channel, from its mean over the image: (B, C, H, W) -> (B, C, 1, 1)."""

    def __init__(self, width: int):
        super().__init__()
        self.ca = nn.Sequential(
            nn.Conv2d(width, width // 8, 1), nn.ReLU(), nn.Conv2d(width // 8, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.ca(x.mean((2, 3), keepdim=True))


class PixelAttention(Fusable):
    """One factor for each pixel, (B, C, H, W) -> (B, 1, H, W), on a residual path."""

    def __init__(self, width: int):
        super().__init__()
        self.pa = nn.Sequential(nn.Conv2d(width, width // 8, 1), nn.ReLU(), nn.Conv2d(width // 8, 1, 1), nn.Sigmoid())

    def plain(self, x: Tensor, *more: Tensor) -> Tensor:
        """X (B, C, H, W) plus attention to a second map of its shape, times factors (B, C, 1, 1)."""
        y = more[0] * more[1]
        return torch.addcmul(x, y, self.pa(y))

    def fused(self) -> Callable[..., Tensor]:
        """The same in one step, where the kernel in C can do it."""
        return pixel_attention.Attend(*self.pa.parameters()) if pixel_attention.works() else self.plain

    def run_fused(self, fast: Callable[..., Tensor], x: Tensor, *more: Tensor) -> Tensor:
        """See the base class; graphs other than that of strips see each operation."""
        if isinstance(fast, pixel_attention.Attend) and fast.fits(x) and (recording() or not watched()):
            return local(fast, x, *more, like=self.plain, halo=0)
        return self.plain(x, *more)


class Block(nn.Module):
    """Two convolutions, then channel and pixel attention, on a residual path."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = Conv3x3(width, width)
        self.conv2 = Conv3x3(width, width)
        self.calayer = ChannelAttention(width)
        self.palayer = PixelAttention(width)

    def forward(self, x: Tensor) -> Tensor:
        y = keep(self.conv2(self.conv1(x, relu=True) + x))
        return keep(self.palayer(x, y, self.calayer(y)))


class Group(nn.Module):
    """Several blocks and a convolution, on a residual path."""

    def __init__(self, width: int, blocks: int):
        super().__init__()
        self.gp = nn.Sequential(*(Block(width) for _ in range(blocks)), Conv3x3(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return keep(self.gp(x) + x)


class Up(Fusable, nn.Sequential):
    """Transposed convolution to twice the size, a 2x2 mean against checkerboards, and ReLU."""

    def __init__(self, width: int):
        super().__init__(nn.ConvTranspose2d(width, width, 4, stride=2, padding=1))

    def plain(self, x: Tensor) -> Tensor:
        x = F.pad(self[0](x), (1, 0, 1, 0), mode="reflect")
        return F.avg_pool2d(x, 2, stride=1).relu()

    def halo(self) -> int:
        """Of the 5x5 kernel, which works on twice the size."""
        return 1

    def fused(self) -> Callable[[Tensor], Tensor]:
        """Both linear steps are one transposed 5x5 convolution; each of the 2x2 outputs of a pixel uses a part of it.

        The first row is the mean of the second and its mirror image, and so equals the second; columns likewise.
        """
        weight, bias = (parameter.clone() for parameter in self[0].parameters())
        # Along an axis: taps of the transposed kernel by which outputs 2 m and 2 m + 1 read x[m-1], x[m] and x[m+1].
        even = constant([[0, 0, 0.5, 0.5], [0.5, 0.5, 0, 0], [0, 0, 0, 0]], weight)
        odd = constant([[0, 0, 0, 0.5], [0, 0.5, 0.5, 0], [0.5, 0, 0, 0]], weight)
        phases = torch.stack([even, odd])
        kernels = torch.einsum("rai,sbj,coij->rsocab", phases, phases, weight).flatten(0, 2).contiguous()
        biases, kept = bias.repeat(4), Kernels(kernels)

        def run(x: Tensor, ends: Ends = WHOLE) -> Tensor:
            batch, width, h, w = x.shape
            rows = ends.without(1, h)
            size = (batch, width, 2 * len(range(*rows.indices(h))), 2 * w)
            out = new_map(size, result_type(x), x.device)
            # (2 x 2 phases, channels) side by side: the outputs of each pixel.
            places = [out[:, :, row::2, column::2] for row in range(2) for column in range(2)]
            if x.dtype == out.dtype and pays(x, kernels):
                winograd_into(x, kept, biases, [Output(to, relu=True) for to in places], above=rows.start)
            else:
                y = convolve_3x3(x, kernels, biases, relu=True)[:, :, rows]
                for to, values in zip(places, y.split(width, dim=1), strict=True):
                    to.copy_(values)
            if ends.top:
                out[:, :, 0] = out[:, :, 1]
            out[:, :, :, 0] = out[:, :, :, 1]
            return out

        return run


class Mix(nn.Module):
    """Blends two maps with one learned scalar."""

    def __init__(self, start: float):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([start]))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        dtype = torch.promote_types(first.dtype, second.dtype)  # autocast leaves some maps in float32
        return torch.lerp(second.to(dtype), first.to(dtype), self.w.sigmoid().to(dtype))


# Tensors of the learned guide, which official checkpoints contain even where the network does not use it.
_GUIDE = ("drconv.", "mix3.", "mix4.")


def _without_guide(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(_GUIDE)}


def _detect(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    if "drconv_phy.conv_kernel.1.weight" not in state or "conv0.0.weight" not in state:
        return None
    groups = {key.split(".")[1] for key in state if key.startswith("FAB.")}
    layers = {key.split(".")[3] for key in state if key.startswith("FAB.0.gp.")}
    return {
        "width": len(state["conv0.0.weight"]),
        "groups": len(groups),
        "blocks": len(layers) - 1,
        "regions": state["drconv_phy.conv_kernel.3.weight"].shape[1],
        "variant": "mask+guide" if "drconv.conv_guide.weight" in state else "mask",
    }


@ARCH_REGISTRY.register()
class HDM(nn.Module):
    """HDM; the defaults are the published network.

    Official checkpoints contain the tensors of both variants, but neither the variant nor the task. Without the name of
    a preset, they are read as "mask", the published variant, without normalisation of the images.

    Args:
        width: channels of all maps, a multiple of 8.
        blocks: attention blocks in a group.
        regions: classes of the dark channel, each with its own kernels.
        variant: "mask": regions from the dark channel alone; "mask+guide": also a second, learned set of regions.
        groups: groups of attention blocks.
        fab_passes: how often the features pass through the groups; 2 in the authors' early training code.
        normalise: normalise by the mean and deviation of hazy images, as published for haze and rain.
        gamma: brighten the image before its regions are computed; 0.25 as published for low light, None for haze, rain.

    Raises:
        UserError: arguments out of range; in `forward`, regions that do not fit the image.
    """

    card = Card(
        paper="Learning Hierarchical Dynamics with Spatial Adjacency for Image Enhancement, ACM MM 2022",
        url="https://doi.org/10.1145/3503161.3548322",
        size_multiple=4,
        global_statistics=True,  # channel attention, generated kernels and the regions see the whole image
        blocks=r"conv[12]|FAB\.\d+\.gp\.\d+|dcn_block\.dcn|drconv(_phy)?|deconv[12]",
        presets={
            "hdm_guide": {"variant": "mask+guide"},
            "hdm_haze": {"normalise": True},  # and rain
            "hdm_lowlight": {"gamma": 0.25},
        },
        official_keys=_without_guide,
        detect=_detect,
    )

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        regions: int = 5,
        variant: str = "mask",
        groups: int = 3,
        fab_passes: int = 1,
        normalise: bool = False,
        gamma: float | None = None,
    ):
        super().__init__()
        if variant not in ("mask", "mask+guide"):
            raise UserError(f"HDM: variant must be 'mask' or 'mask+guide', not {variant!r}")
        if width < 8 or width % 8:
            raise UserError(f"HDM: width must be a multiple of 8 (its attention has an eighth of it), not {width}")
        if min(blocks, regions, groups, fab_passes) < 1:
            raise UserError("HDM: blocks, regions, groups and fab_passes must be at least 1")
        if gamma is not None and not 0 < gamma <= 1:
            raise UserError(f"HDM: gamma must be in (0, 1] or null, not {gamma}")
        self.regions, self.fab_passes, self.normalise, self.gamma = regions, fab_passes, normalise, gamma

        def down() -> nn.Sequential:
            return nn.Sequential(Conv3x3(width, width), nn.Conv2d(width, width, 3, 2, 1))

        self.conv0 = nn.Sequential(nn.Conv2d(3, width, 5, padding=2))
        self.conv1 = down()
        self.conv2 = down()
        self.FAB = nn.Sequential(*(Group(width, blocks) for _ in range(groups)))
        self.dcn_block = nn.ModuleDict({"dcn": DeformConv2d(width, width)})
        self.drconv_phy = RegionConv2d(width, width, regions=regions, guide=False)
        self.drconv = RegionConv2d(width, width, regions=regions) if variant == "mask+guide" else None
        self.mix1, self.mix2 = Mix(-1.0), Mix(-0.6)
        self.mix3, self.mix4 = (Mix(-0.5) if variant == "mask+guide" else None for _ in range(2))
        self.deconv1 = Up(width)
        self.deconv2 = Up(width)
        self.output = ConvChain(
            nn.Conv2d(width, width, 5, padding=2),
            nn.Conv2d(width, width, 5, padding=2),
            nn.Conv2d(width, 3, 5, padding=2),
        )

    def forward(self, x: Tensor, regions: Tensor | None = None) -> Tensor:
        """Enhance images of any size.

        Args:
            x: (B, 3, H, W) in [0, 1].
            regions: where each kernel applies, at a quarter of the size (rounded up): indices (B, H/4, W/4), or a mask
                (B, R, H/4, W/4) or (B, R, 1, H/4, W/4) that sums to one; computed from x when None.

        Returns:
            (B, 3, H, W) in (-1, 1).
        """
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, 4).contiguous(memory_format=torch.channels_last)
        if regions is None:
            regions = haze_regions(x, self.regions, self.gamma)
        else:
            regions = region_map(regions, self.regions, (x.shape[0], x.shape[2] // 4, x.shape[3] // 4))
        if self.normalise:
            x = (x - constant(MEAN, x).view(3, 1, 1)) / constant(STD, x).view(3, 1, 1)

        half = keep(self.conv1(self.conv0(x).relu_()).relu_())
        quarter = keep(self.conv2(half).relu_())
        y = quarter
        for _ in range(self.fab_passes):
            y = self.FAB(y).relu()
        y = self._adapt(y, regions, self.mix3)
        y = self._adapt(y, regions, self.mix4)
        y = self.deconv1(self.mix1(quarter, y))
        y = self.deconv2(self.mix2(half, y))
        return self.output(y).tanh_()[:, :, :height, :width]

    def _adapt(self, x: Tensor, regions: Tensor, mix: Mix | None) -> Tensor:
        """Structure, then region dynamics; both passes share all weights except the gate."""
        # Offsets in pixels are computed from features of large magnitude, so they need float32 even under autocast.
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            y = in_one_piece(self.dcn_block["dcn"], x, shape=x.shape)
            adapted = in_one_piece(lambda y, regions: self.drconv_phy(y, regions, False), y, regions, shape=x.shape)
            if self.drconv is None or mix is None:
                return adapted
            return mix(in_one_piece(self.drconv, y, shape=x.shape), adapted)
