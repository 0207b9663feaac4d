"""Layers of the HVI family: resizing, lighten cross-attention (LCA), and the head of the factors; see `hvi.py`.

No convolution in the family has a bias.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.ops import lighten
from llie.ops.fusion import Function, Fusable
from llie.ops.parts import WHOLE, Ends, as_graph, keep, local, rolling
from llie.ops.resizing import conv_and_halve, double_and_merge, merges_in_c, with_rows_as_channels
from llie.ops.tiles import Tile, add_tanh, fast, in_parts, in_tiles, summed
from llie.ops.winograd import Conv3x3, Kernels, convolve_3x3, pays


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Mixes channels."""
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


def conv3x3(in_channels: int, out_channels: int, padding_mode: Literal["zeros", "replicate"] = "zeros") -> Conv3x3:
    """Keeps the size; the first and last convolutions of a network pad by replication."""
    return Conv3x3(in_channels, out_channels, bias=False, padding_mode=padding_mode)


def convolve_replicated(conv: Conv3x3, x: Tensor, more: Tensor | None = None) -> Tensor:
    """A `conv3x3` padded by replication; the channels of `more` come after those of x."""
    weight = conv.weight
    few = 9 * conv.out_channels <= conv.in_channels  # libraries are fast for many outputs only
    by_products = few and fast(x) and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if pays(x, weight) or not by_products:
        result: Tensor = conv(x, more=more)
        return result
    # The nine products of each pixel as channels; then, maps of them are shifted and added.
    x = x if more is None else torch.cat((x, more), dim=1)
    height, width = x.shape[2:]
    edges = functools.partial(F.pad, pad=(1, 1, 1, 1), mode="replicate")
    products = edges(F.conv2d(x, weight.permute(2, 3, 0, 1).flatten(0, 2)[:, :, None, None])).unflatten(1, (9, -1))
    shifts = [products[:, 3 * i + j, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return sum(shifts[1:], start=shifts[0])


def convolve_maps(conv: Conv3x3, *maps: Tensor) -> Tensor:
    """`convolve_replicated` of one map or two; in tiles, where it makes larger maps on the way."""
    convolve = functools.partial(convolve_replicated, conv)

    def run(*maps: Tensor, ends: Ends = WHOLE) -> Tensor:
        in_c = pays(maps[0], conv.weight)
        result = convolve(*maps) if in_c else in_tiles(convolve, *maps, channels=2 * conv.in_channels, halo=1)
        return result[:, :, ends.without(1, maps[0].shape[2])]

    return local(run, *maps, like=convolve, halo=1)


def depthwise(channels: int) -> nn.Conv2d:
    """A depthwise 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Resize(nn.Module):
    """The common part of `Down` and `Up`: a convolution, and a PReLU with layer normalisation before, after or none."""

    def __init__(self, in_channels: int, out_channels: int, norm: str | None):
        super().__init__()
        self.conv = conv3x3(in_channels, out_channels)
        self.prelu = nn.PReLU()
        self.norm = LayerNorm(out_channels) if norm else nn.Identity()
        self.norm_first = norm == "before"

    @property
    def activate(self) -> Callable[[Tensor], Tensor]:
        norm, prelu = self.norm, self.prelu
        if isinstance(norm, nn.Identity):
            return prelu
        return (lambda x: prelu(norm(x))) if self.norm_first else (lambda x: norm(prelu(x)))


class Down(Resize):
    """Convolution, then resizing to half the size."""

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, nn.Identity):
            return conv_and_halve(x, self.conv.weight, self.prelu)
        return self.activate(conv_and_halve(x, self.conv.weight))


class Up(Resize, Fusable):
    """Convolution, resizing to twice the size, then a 1x1 convolution that merges the features of the encoder.

    Where these are `stem(image)`, padded by replication, both may be given, too.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str | None):
        super().__init__(in_channels, out_channels, norm)
        self.merge = conv1x1(2 * out_channels, out_channels)

    def plain(self, x: Tensor, *others: Any) -> Tensor:
        """X (B, C, H, W), features (B, C', 2 H, 2 W), perhaps an image and its stem -> (B, C', 2 H, 2 W)."""
        return self._merged(self._folded(), None, x, *others)

    def fused(self) -> Function:
        """The same with a kernel that is folded once."""
        folded = self._folded()
        return functools.partial(self._merged, folded, Kernels(folded[0]))

    def run_fused(self, fast: Function, x: Tensor, *others: Any) -> Tensor:
        """See the base class; graphs see each step."""
        return self.plain(x, *others) if as_graph() else fast(x, *others)

    def _folded(self) -> tuple[Tensor, Tensor]:
        """The kernel for x, and the weight for the features of the encoder."""
        # merge(cat(resize(conv(x)), skip)). Mixing channels commutes with resizing, so the half of `merge` that acts
        # on x is folded into the kernel of `conv`: a quarter of the pixels, and no concatenation.
        merge_x, merge_skip = self.merge.weight.chunk(2, dim=1)
        return torch.einsum("om,mihw->oihw", merge_x[:, :, 0, 0], self.conv.weight), merge_skip

    def _merged(
        self,
        folded: tuple[Tensor, Tensor],
        kernels: Kernels | None,
        x: Tensor,
        skip: Tensor,
        image: Tensor | None = None,
        stem: nn.Conv2d | None = None,
    ) -> Tensor:
        kernel, merge_skip = folded
        if image is not None and stem is not None and merges_in_c(x) and not torch.is_autocast_enabled("cpu"):
            # Two convolutions in turn are one, too: that of the image, which has few channels.
            both = torch.einsum("om,mihw->oihw", merge_skip[:, :, 0, 0], stem.weight)
            skip, merge_skip = with_rows_as_channels(F.pad(image, (1, 1, 1, 1), mode="replicate"), both)
        return double_and_merge(convolve_3x3(x, kernel, kernels=kernels), skip, merge_skip, self.activate)


class CrossAttention(nn.Module):
    """Channel attention (CAB): rebuilds the channels of one branch from those of the other."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.q = conv1x1(channels, channels)
        self.q_dwconv = depthwise(channels)
        self.kv = conv1x1(channels, 2 * channels)
        self.kv_dwconv = depthwise(2 * channels)
        self.project_out = conv1x1(channels, channels)

    def queries(self, x: Tensor) -> Tensor:
        return self.q_dwconv(self.q(x))

    def keys_and_values(self, y: Tensor, part: slice = slice(None)) -> Tensor:
        """Of all channels, or of a part of them: the first half are keys, the second values."""
        mixed = F.conv2d(y, self.kv.weight[part])
        return F.conv2d(mixed, self.kv_dwconv.weight[part], padding=1, groups=mixed.shape[1])

    def by_head(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, heads, C / heads, H W)."""
        return x.flatten(2).unflatten(1, (self.heads, -1))

    def sums(self, q: Tensor, k: Tensor) -> Tensor:
        """What pixels add to products of queries and keys, and to squares: (B, heads, c, c + 2), c = C / heads."""
        q, k = self.by_head(q), self.by_head(k)
        return torch.cat([_precise(q @ k.transpose(-2, -1)), _squares(q), _squares(k)], dim=-1)

    def mixing(self, products: Tensor, of_q: Tensor, of_k: Tensor) -> Tensor:
        """How the channels of the result are mixed from those of the values: (B, C, C).

        Args:
            products: of queries and keys, summed over the pixels, (B, heads, C / heads, C / heads).
            of_q: norms of the queries over the pixels, (B, heads, C / heads, 1).
            of_k: norms of the keys.
        """
        # The cosine of two channels: the product of their norms divides the small matrix, instead of the maps.
        similarity = products / of_q.clamp(min=1e-12) / of_k.clamp(min=1e-12).transpose(-2, -1)
        attention = (similarity * self.temperature).softmax(dim=-1)
        # To mix the channels of v by attention and then by `project_out` is to mix them once, by the product.
        project = self.project_out.weight.flatten(1).unflatten(1, (self.heads, -1))
        return torch.einsum("ohc,bhcd->bohd", project, attention.to(project.dtype)).flatten(2)

    @staticmethod
    def mixed(v: Tensor, mix: Tensor) -> Tensor:
        """The channels of v (B, C, H, W), mixed by (B, C, C)."""
        pixels = v.permute(0, 2, 3, 1).flatten(1, 2) @ mix.to(v.dtype).transpose(1, 2)
        return pixels.unflatten(1, v.shape[2:]).permute(0, 3, 1, 2)


def _precise(x: Tensor) -> Tensor:
    """In a type to add many values up in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _squares(x: Tensor) -> Tensor:
    """Sums of squares along the last axis, which remains with size 1."""
    return _precise(x).square().sum(-1, keepdim=True)


class IntensityEnhance(nn.Module):
    """Gated feed-forward layer (IEL): the product of two locally enhanced halves."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = int(2.66 * channels)
        self.project_in = conv1x1(channels, 2 * hidden)
        self.dwconv = depthwise(2 * hidden)
        self.dwconv1 = depthwise(hidden)
        self.dwconv2 = depthwise(hidden)
        self.project_out = conv1x1(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        # The two halves go through the same steps side by side, without a copy.
        spread = self.project_in.weight
        first = self.dwconv.weight
        second = torch.cat((self.dwconv1.weight, self.dwconv2.weight))
        gather = self.project_out.weight
        spare = -gather.shape[1] % 8
        if spare and fast(x):  # kernels on CPUs are fast for multiples of 8 channels; the spare ones remain zero
            spread, first, second = (with_spare_channels(weight, spare) for weight in (spread, first, second))
            gather = F.pad(gather, (0, 0, 0, 0, 0, spare))
        x = F.conv2d(F.conv2d(x, spread), first, padding=1, groups=len(first))
        local = F.conv2d(x, second, padding=1, groups=len(second))
        left, right = add_tanh(x, local).chunk(2, dim=1)
        return F.conv2d(left * right, gather)


def with_spare_channels(weight: Tensor, spare: int) -> Tensor:
    """The weight (2 C, ...) of a convolution, with that many more output channels, all zero, in each half."""
    halves = weight.flatten(1).unflatten(0, (2, -1))
    return F.pad(halves, (0, 0, 0, spare)).flatten(0, 1).unflatten(1, weight.shape[1:])


class CrossBlock(nn.Module):
    """One branch attends to the other, then enhances itself; the HV branch has no residual around the second step."""

    def __init__(self, channels: int, heads: int, residual: bool):
        super().__init__()
        self.residual = residual
        self.norm = LayerNorm(channels)  # one module in three places, as published
        self.attention = CrossAttention(channels, heads)
        self.enhance = IntensityEnhance(channels)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        attention, norm = self.attention, self.norm
        if in_parts(x):
            return self._in_tiles(x, other)
        k, v = attention.keys_and_values(norm(other)).chunk(2, dim=1)
        q, k = attention.by_head(attention.queries(norm(x))), attention.by_head(k)
        of_q, of_k = (torch.linalg.vector_norm(t, dim=-1, keepdim=True) for t in (q, k))
        mix = attention.mixing(q @ k.transpose(-2, -1), of_q, of_k)
        return self._enhanced(x + attention.mixed(v, mix))

    def _in_tiles(self, x: Tensor, other: Tensor) -> Tensor:
        """The same in two runs over the tiles: the first sums up what decides on the attention."""
        attention, norm, channels = self.attention, self.norm, x.shape[1]
        keys, values = slice(0, channels), slice(channels, None)
        in_c = lighten.works(x)

        def sums(x: Tensor, y: Tensor, tile: Tile) -> Tensor:
            if in_c:
                found = lighten.attention_sums(x, y, attention.heads, *tile.within(), self._weights(), norm.eps)
                return found.flatten(1)
            q, k = attention.queries(norm(x)), attention.keys_and_values(norm(y), keys)
            return attention.sums(tile.of(q), tile.of(k)).flatten(1)

        def result(x: Tensor, y: Tensor, mix: Tensor) -> Tensor:
            return self._enhanced(x + attention.mixed(attention.keys_and_values(norm(y), values), mix))

        def result_in_c(x: Tensor, y: Tensor, mix: Tensor) -> Tensor:
            return lighten.lightened(x, y, mix, self.residual, self._weights(), norm.eps)

        def in_turn() -> lighten.Lightened:
            return lighten.Lightened(tuple(x.shape), self.residual, self._weights(), norm.eps)

        per_head, hidden = channels // attention.heads, self.enhance.dwconv.out_channels
        # In C, tiles need not be small.
        found = summed(
            sums, x, other, size=channels * (per_head + 2), channels=1 if in_c else 4 * channels, halo=1
        ).unflatten(1, (attention.heads, per_head, -1))
        mix = attention.mixing(found[..., :-2], *found[..., -2:].sqrt().split(1, dim=-1))
        if in_c:
            return rolling(result_in_c, x, other, mix, like=result, halo=3, begin=in_turn)
        return in_tiles(result, x, other, also=[mix], channels=hidden, halo=3)

    def _weights(self) -> dict[str, Tensor]:
        """As `lighten` names them."""
        attention, enhance = self.attention, self.enhance
        return {
            "norm": self.norm.weight,
            "norm_bias": self.norm.bias,
            "queries": attention.q.weight,
            "queries_local": attention.q_dwconv.weight,
            "keys_values": attention.kv.weight,
            "keys_values_local": attention.kv_dwconv.weight,
            "spread": enhance.project_in.weight,
            "local": enhance.dwconv.weight,
            "left": enhance.dwconv1.weight,
            "right": enhance.dwconv2.weight,
            "gather": enhance.project_out.weight,
        }

    def _enhanced(self, x: Tensor) -> Tensor:
        enhanced = self.enhance(self.norm(x))
        return x + enhanced if self.residual else enhanced


class LCA(nn.Module):
    """Lighten cross-attention: each branch attends to the other branch's input."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.i = CrossBlock(channels, heads, residual=True)
        self.hv = CrossBlock(channels, heads, residual=False)

    def forward(self, i: Tensor, hv: Tensor) -> tuple[Tensor, Tensor]:
        return self.i(i, hv), self.hv(hv, i)


class ModulationHead(nn.Module):
    """Last features of both branches -> one unbounded map for each factor."""

    def __init__(self, channels: int, factors: int):
        super().__init__()
        self.conv_in = conv3x3(2 * channels, channels, "replicate")
        self.norm = nn.GroupNorm(1, channels)
        self.conv_out = conv3x3(channels, factors, "replicate")

    def forward(self, features: tuple[Tensor, Tensor]) -> Tensor:
        channels = self.conv_out.in_channels
        x = convolve_maps(self.conv_in, *features)
        x = keep(x)  # cheaper than to compute all that leads to it once more after the statistics of `norm`
        return in_tiles(
            lambda x: convolve_replicated(self.conv_out, F.silu(x)), self.norm(x), channels=2 * channels, halo=1
        )
