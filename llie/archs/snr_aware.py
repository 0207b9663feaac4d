"""SNR-Aware: convolutions where the signal is strong; where noise dominates, attention to regions of strong signal.

Xu et al., "SNR-Aware Low-Light Image Enhancement", CVPR 2022. At a quarter of the size a short-range branch
(convolutions) and a long-range one (a transformer on 4x4 patches) run side by side. The signal-to-noise map blends them
per pixel, and excludes patches of low ratio from attention. Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.archs.card import Card
from llie.errors import UserError
from llie.ops.exporting import exporting
from llie.ops.fusion import Fusable
from llie.ops.linear import Linear
from llie.ops.padding import any_size, at_size, pad_to_multiple, reflected
from llie.ops.parts import WHOLE, Ends, apart, in_one_piece, keep, local, new_map
from llie.ops.snr import snr_map
from llie.ops.winograd import Conv3x3, Kernels, convolve_3x3, pays, result_type, winograd_into
from llie.ops.winograd_matrices import Output
from llie.registry import ARCH_REGISTRY

PATCH = 4
HEADS = 8
LOCAL_BLOCKS = 6
SLOPE = 0.1  # of the activation of stem and decoder
TOKENS = 1024  # fed forward at a time, so that they stay in the cache
QUERIES = 2048  # computed at a time; this bounds the memory where a kernel expands the mask


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution with zero padding and bias, like all in this network."""
    if stride == 1:
        return Conv3x3(in_channels, out_channels)
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)


def leaky(x: Tensor) -> Tensor:
    """The activation of stem and decoder, in place."""
    return F.leaky_relu(x, SLOPE, inplace=True)


class ResidualBlock(nn.Module):
    """Two convolutions around a ReLU; near the identity before training."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data *= 0.1
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x, relu=True), added=x)


class DecoderConv(Fusable, Conv3x3):
    """A convolution of two maps, and the activation; fused, one step reads both, and writes to where values belong.

    Args:
        channels: of each of the maps.
        outputs: channels of the result.
        factor: to its size; for each pixel, the convolution computes that many in height and width (a pixel shuffle).
    """

    def __init__(self, channels: int, outputs: int, factor: int = 1):
        super().__init__(2 * channels, factor**2 * outputs)
        self.factor = factor

    def plain(self, y: Tensor, *skip: Tensor) -> Tensor:
        """(B, channels, h, w) twice -> (B, outputs, factor h, factor w)."""
        return self.activated(Conv3x3.forward(self, torch.cat([y, *skip], dim=1)))

    def activated(self, y: Tensor) -> Tensor:
        """What follows the convolution."""
        return F.pixel_shuffle(leaky(y), self.factor) if self.factor > 1 else leaky(y)

    def fused(self) -> Callable[..., Tensor]:
        """The channels of each of the pixels are an output of their own."""
        pixels = [(row, column) for row in range(self.factor) for column in range(self.factor)]
        weight, bias = (
            each.unflatten(0, (-1, len(pixels))).transpose(0, 1).flatten(0, 1).contiguous()
            for each in self.parameters()
        )
        kernels, outputs = Kernels(weight), len(weight) // len(pixels)

        def run(y: Tensor, skip: Tensor, ends: Ends = WHOLE) -> Tensor:
            height, width = y.shape[2:]
            rows = ends.without(1, height)
            if not (y.dtype == skip.dtype == result_type(y) and pays(y, weight)):
                return self.plain(y, skip)[:, :, self.factor * rows.start : self.factor * rows.stop]
            size = (len(y), outputs, self.factor * (rows.stop - rows.start), self.factor * width)
            result = new_map(size, y.dtype)
            places = [result[:, :, row :: self.factor, column :: self.factor] for row, column in pixels]
            to = [Output(place, relu=True, slope=SLOPE) for place in places]
            winograd_into(y, kernels, bias, to, skip, above=rows.start)
            return result

        return run

    def run_fused(self, fast: Callable[..., Tensor], y: Tensor, *skip: Tensor) -> Tensor:
        """See the base class."""
        return local(fast, y, *skip, like=self.plain, halo=1)


def residual_blocks(channels: int, count: int) -> nn.Sequential:
    """A sequence of `count` residual blocks."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


def cut(x: Tensor) -> Tensor:
    """(B, C, h, w) -> its 4x4 patches as tokens (B, N, 16 C), row by row; C varies slowest in a token."""
    patches = x.permute(0, 2, 3, 1).unflatten(1, (-1, PATCH)).unflatten(3, (-1, PATCH))
    return patches.permute(0, 1, 3, 5, 2, 4).flatten(3).flatten(1, 2)


def paste(tokens: Tensor, width: int) -> Tensor:
    """The inverse of `cut`: tokens -> (B, C, h, width), channels last."""
    patches = tokens.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, (-1, width // PATCH))
    return patches.permute(0, 1, 4, 2, 5, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class SelfAttention(nn.Module):
    """Multi-head attention to the valid tokens; in an image without any, all tokens get the same attention."""

    def __init__(self, width: int):
        super().__init__()
        inner = width // 2
        self.layer_norm = nn.LayerNorm(width, eps=1e-6)
        self.w_qs = Linear(width, inner, bias=False)
        self.w_ks = Linear(width, inner, bias=False)
        self.w_vs = Linear(width, inner, bias=False)
        self.fc = Linear(inner, width, bias=False)

    def forward(self, tokens: Tensor, valid: Tensor, uniform: bool) -> Tensor:
        """Tokens (B, N, width), valid (B, N) -> tokens; `uniform` promises that no token of any image is valid."""
        blind = ~valid.any(1, keepdim=True)
        valid = valid | blind
        if uniform:
            # The result is the mean of the values, which is the value of the mean token: one token instead of N.
            x, valid = self._mean(tokens), valid[:, :1]
        else:
            x = self.layer_norm(tokens)
        q, k, v = (w(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for w in (self.w_qs, self.w_ks, self.w_vs))
        # A zero query gives all keys the same score, exactly and in any precision, and no gradient to w_qs and w_ks.
        q = q.masked_fill(blind[:, :, None, None], 0)
        mask = valid[:, None, None, :]
        seen = [
            F.scaled_dot_product_attention(part, k, v, mask)
            for part in ([q] if exporting() else q.split(QUERIES, dim=2))
        ]
        return tokens + self.fc(torch.cat(seen, dim=2).transpose(1, 2).flatten(2))

    def _mean(self, tokens: Tensor) -> Tensor:
        """That of the normalised tokens: (B, N, width) -> (B, 1, width)."""
        sums = [self.layer_norm(part).sum(1, keepdim=True) for part in tokens.split(TOKENS, 1)]
        return sum(sums[1:], start=sums[0]) / tokens.shape[1]


class FeedForward(nn.Module):
    """Two linear layers on every token."""

    def __init__(self, width: int):
        super().__init__()
        self.layer_norm = nn.LayerNorm(width, eps=1e-6)
        self.w_1 = Linear(width, 2 * width)
        self.w_2 = Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, width) -> tokens; without gradients, in their memory."""
        if torch.is_grad_enabled() or exporting():
            return tokens + self._added(tokens)
        for part in tokens.split(TOKENS, 1):
            part.add_(self._added(part))
        return tokens

    def _added(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.w_2(self.w_1(self.layer_norm(tokens), relu=True))
        return result


class EncoderLayer(nn.Module):
    """Attention, then a feed-forward layer, each on a residual path."""

    def __init__(self, width: int):
        super().__init__()
        self.slf_attn = SelfAttention(width)
        self.pos_ffn = FeedForward(width)

    def forward(self, tokens: Tensor, valid: Tensor, uniform: bool = False) -> Tensor:
        return self.pos_ffn(self.slf_attn(tokens, valid, uniform))


class Encoder(nn.Module):
    """The transformer, without position encoding."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.layer_stack = nn.ModuleList(EncoderLayer(width) for _ in range(layers))

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Tokens (B, N, width) that attend to those that are valid (B, N)."""
        # Photographs hardly ever have a valid token (see `snr_map`). Reading the mask is free on a CPU, but on a GPU,
        # where attention is cheap, the host would have to wait; and a compiled graph must be valid for any mask.
        readable = valid.device.type == "cpu" and not torch.compiler.is_compiling()
        uniform = readable and not valid.any()
        for layer in self.layer_stack:
            tokens = layer(tokens, valid, uniform)
        return tokens


class Context(NamedTuple):
    """What `SNRAware.decode` needs besides the feature.

    Attributes:
        x: the image (B, 3, H, W), to which the network adds.
        snr: its map at a quarter of the size (B, 1, H/4, W/4).
        full, half, quarter: stem features (B, nf, ...) at these sizes; or, for `twice`, what the decoder's convolutions
            compute from them.
        twice: `decode` runs twice.
    """

    x: Tensor
    snr: Tensor
    full: Tensor
    half: Tensor
    quarter: Tensor
    twice: bool = False

    def convolve(self, conv: DecoderConv, y: Tensor, skip: Tensor) -> Tensor:
        """`conv(y, stem feature)`; `skip` is that feature, or its share in the sum."""
        if not self.twice:
            return conv(y, skip)
        return conv.activated(convolve_3x3(y, conv.weight[:, : y.shape[1]], added=skip))


def _detect(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    if "conv_first_1.weight" not in state or "recon_trunk_light.0.conv1.weight" not in state:
        return None
    if "common_feature" in state:
        return None  # LFPV around this network

    def count(prefix: str) -> int:
        return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})

    return {
        "nf": len(state["conv_first_1.weight"]),
        "front_blocks": count("feature_extraction."),
        "back_blocks": count("recon_trunk."),
        "layers": count("transformer.layer_stack."),
    }


@ARCH_REGISTRY.register()
class SNRAware(nn.Module):
    """SNR-Aware; the defaults are the published network.

    Args:
        nf: channels.
        front_blocks: residual blocks before the branches.
        back_blocks: residual blocks after them.
        layers: of the transformer.
        edges: the long-range branch works on patches of 16x16. At sizes that are not multiples of 16, "zeros" leaves
            out the last rows and columns, as published, and they get worse; "reflect" completes the patches. Images
            smaller than a patch are completed to one in any case.
        mask_threshold: patches with a mean ratio up to this are excluded from attention.
        snr_quantile: see `llie.ops.snr.snr_map`. With 0.5, an experiment, the mask is no longer empty on photographs.

    Raises:
        UserError: a value out of range.
    """

    card = Card(
        paper="SNR-Aware Low-Light Image Enhancement, CVPR 2022",
        url="https://openaccess.thecvf.com/content/CVPR2022/html/Xu_SNR-Aware_Low-Light_Image_Enhancement_CVPR_2022_paper.html",
        size_multiple=4,
        global_statistics=True,  # the map's maximum, and attention
        blocks=r"(feature_extraction|recon_trunk|recon_trunk_light|transformer\.layer_stack)\.\d+",
        detect=_detect,
    )

    def __init__(
        self,
        nf: int = 64,
        front_blocks: int = 1,
        back_blocks: int = 1,
        layers: int = 6,
        edges: str = "zeros",
        mask_threshold: float = 0.5,
        snr_quantile: float = 1.0,
    ):
        super().__init__()
        if edges not in ("zeros", "reflect"):
            raise UserError(f"SNRAware: edges must be 'zeros' or 'reflect', not {edges!r}")
        if nf < 1 or min(front_blocks, back_blocks, layers) < 0:
            given = f"{nf}, {front_blocks}, {back_blocks} and {layers}"
            raise UserError(
                f"SNRAware: nf must be at least 1; front_blocks, back_blocks and layers at least 0; not {given}"
            )
        if not 0 < snr_quantile <= 1:
            raise UserError(f"SNRAware: snr_quantile must be in (0, 1], not {snr_quantile}")
        self.edges, self.mask_threshold, self.snr_quantile = edges, mask_threshold, snr_quantile
        self.conv_first_1 = conv3x3(3, nf)
        self.conv_first_2 = conv3x3(nf, nf, stride=2)
        self.conv_first_3 = conv3x3(nf, nf, stride=2)
        self.feature_extraction = residual_blocks(nf, front_blocks)
        self.recon_trunk_light = residual_blocks(nf, LOCAL_BLOCKS)
        self.transformer = Encoder(nf * PATCH**2, layers)
        self.recon_trunk = residual_blocks(nf, back_blocks)
        self.upconv1 = DecoderConv(nf, nf, factor=2)
        self.upconv2 = DecoderConv(nf, nf, factor=2)
        self.HRconv = DecoderConv(nf, nf)
        self.conv_last = conv3x3(nf, 3)

    def forward(self, x: Tensor, snr: Tensor | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """Enhance (B, 3, H, W) in [0, 1], any size -> the same shape, not clamped.

        Args:
            x: the image.
            snr: its signal-to-noise map (B, 1, H, W) in [0, 1]; `snr_map` of the image if None.
            size: (height, width) to work at, as in published protocols: image and map are resized to it, bilinearly,
                and the result back.
        """
        enhance = SNRAware._enhance if size is None else at_size(size)(SNRAware._enhance)
        return enhance(self, x, self.snr(x, snr))

    def snr(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """The signal-to-noise map (B, 1, H, W) of an image: the given one, checked, or that which the network computes.

        Raises:
            UserError: the given map does not have the size of the image.
        """
        if given is None:
            return snr_map(x.detach(), self.snr_quantile)
        wanted, shape = (x.shape[0], 1, *x.shape[-2:]), tuple(getattr(given, "shape", ()))
        if shape != wanted:
            raise UserError(f"SNRAware: snr must be a map of the shape {wanted} for this image, not {shape or given}")
        return given

    @any_size(4)
    def _enhance(self, x: Tensor, snr: Tensor) -> Tensor:
        return self.decode(*self.encode(x, snr))

    def encode(self, x: Tensor, snr: Tensor | None = None, twice: bool = False) -> tuple[Tensor, Context]:
        """The feature (B, nf, H/4, W/4) that both branches start from, and what `decode` needs besides.

        Args:
            x: (B, 3, H, W), sizes multiples of 4.
            snr: as for `forward`.
            twice: `decode` will run twice, so what it computes from the stem alone is computed here. (A single run is
                faster without this.)
        """
        snr = self.snr(x, snr)
        full = leaky(self.conv_first_1(x.contiguous(memory_format=torch.channels_last)))
        half = keep(leaky(self.conv_first_2(full)))
        quarter = keep(leaky(self.conv_first_3(half)))
        f = keep(self.feature_extraction(quarter))
        if twice:
            pairs = ((self.HRconv, full), (self.upconv2, half), (self.upconv1, quarter))
            full, half, quarter = (
                convolve_3x3(skip, conv.weight[:, -skip.shape[1] :], conv.bias) for conv, skip in pairs
            )
        return f, Context(x, snr[..., ::4, ::4], full, half, quarter, twice)

    def decode(self, f: Tensor, context: Context) -> Tensor:
        """Compute the enhanced image (B, 3, H, W) from the feature (B, nf, H/4, W/4), through both branches."""
        near = self.recon_trunk_light(f)
        far = self._long_range(f, context.snr)
        # The large maps after it need low strips, which would be a row of the maps up to here.
        y = apart(self.recon_trunk(torch.lerp(far, near, context.snr.to(far.dtype))))
        y = context.convolve(self.upconv1, y, context.quarter)
        y = context.convolve(self.upconv2, y, context.half)
        y = context.convolve(self.HRconv, y, context.full)
        return self.conv_last(y, added=context.x)

    def _long_range(self, f: Tensor, snr: Tensor) -> Tensor:
        whole = whole_patches if self.edges == "zeros" else completed_patches
        patched, snr = whole(f), whole(snr)
        valid = F.avg_pool2d(snr, PATCH).flatten(1) > self.mask_threshold
        tokens = cut(patched)
        far = paste(in_one_piece(self.transformer, tokens, valid, shape=tokens.shape), patched.shape[-1])
        return far if far.shape == f.shape else of_size(far, *f.shape[-2:])


def completed_patches(x: Tensor) -> Tensor:
    """Patches of (..., H, W), the last ones completed by reflection."""
    return pad_to_multiple(x, PATCH)


def whole_patches(x: Tensor) -> Tensor:
    """Whole patches of (..., H, W): the last rows and columns are left out, unless they are all that there is."""
    height, width = (PATCH * torch.sym_max(size // PATCH, 1) for size in x.shape[-2:])
    if exporting() or height > x.shape[-2] or width > x.shape[-1]:  # a graph must hold for smaller images, too
        rows, columns = (
            reflected(torch.arange(kept, device=x.device), size)
            for kept, size in zip((height, width), x.shape[-2:], strict=True)
        )
        return x.index_select(-2, rows).index_select(-1, columns)
    return x[..., :height, :width]


def of_size(x: Tensor, height: int, width: int) -> Tensor:
    """Crop (..., H, W) to this size, or complete it with zeros."""
    below: Any = torch.sym_max(height - x.shape[-2], 0)  # also in a graph, whose sizes stand for any number
    right: Any = torch.sym_max(width - x.shape[-1], 0)
    return F.pad(x, (0, right, 0, below))[..., :height, :width]
