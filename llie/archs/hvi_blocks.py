"""Layers of the HVI family: resizing, lighten cross-attention (LCA), and the head of the factors; see `hvi.py`.

No convolution in the family has a bias.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.ops.bands import Joined, add_tanh, bands, fast, in_bands
from llie.ops.resizing import conv_and_halve
from llie.ops.winograd import convolve_3x3


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Mixes channels."""
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


def conv3x3(in_channels: int, out_channels: int, padding_mode: Literal["zeros", "replicate"] = "zeros") -> nn.Conv2d:
    """Keeps the size; the first and last convolutions of a network pad by replication."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False, padding_mode=padding_mode)


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

    def activate(self, x: Tensor) -> Tensor:
        return self.prelu(self.norm(x)) if self.norm_first else self.norm(self.prelu(x))


class Down(Resize):
    """Convolution, then resizing to half the size."""

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(conv_and_halve(x, self.conv.weight))


class Up(Resize):
    """Convolution, resizing to twice the size, then a 1x1 convolution that merges the features of the encoder."""

    def __init__(self, in_channels: int, out_channels: int, norm: str | None):
        super().__init__(in_channels, out_channels, norm)
        self.merge = conv1x1(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        # merge(cat(resize(conv(x)), skip)). Mixing channels commutes with resizing, so the half of `merge` that acts
        # on x is folded into the kernel of `conv`: a quarter of the pixels, and no concatenation.
        merge_x, merge_skip = self.merge.weight.chunk(2, dim=1)
        kernel = torch.einsum("om,mihw->oihw", merge_x[:, :, 0, 0], self.conv.weight)
        x = F.interpolate(convolve_3x3(x, kernel), scale_factor=2, mode="bilinear", align_corners=True)
        return in_bands(lambda x, skip: self.activate(x + F.conv2d(skip, merge_skip)), x, skip, channels=2 * x.shape[1])


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

    def project(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of x, and keys and values of y."""
        k, v = self.kv_dwconv(self.kv(y)).chunk(2, dim=1)
        return self.q_dwconv(self.q(x)), k, v

    def forward(self, x: Tensor, y: Tensor, norm: nn.Module) -> Tensor:
        """What y has to say about x; `norm` comes before, on both."""
        products, norms_q, norms_k, values = [], [], [], Joined(y.shape[2])
        for band in bands(x, 4 * x.shape[1], halo=1):
            q, k, v = map(band.of, self.project(norm(band.around(x)), norm(band.around(y))))
            q, k = (t.flatten(2).unflatten(1, (self.heads, -1)) for t in (q, k))
            products.append(q @ k.transpose(-2, -1))
            norms_q.append(_norm(q))
            norms_k.append(_norm(k))
            values.add(v)
        # The cosine of two channels: the product of their norms divides the small matrix, instead of the maps.
        of_q, of_k = (_norm_of_all(norms).clamp(min=1e-12) for norms in (norms_q, norms_k))
        similarity = functools.reduce(torch.add, products) / of_q / of_k.transpose(-2, -1)
        attention = (similarity * self.temperature).softmax(dim=-1)
        # To mix the channels of v by attention and then by `project_out` is to mix them once, by the product.
        mix = self.project_out.weight.flatten(1).unflatten(1, (self.heads, -1))
        mix = torch.einsum("ohc,bhcd->bohd", mix, attention).flatten(2)
        v = values.map
        pixels = v.permute(0, 2, 3, 1).flatten(1, 2) @ mix.transpose(1, 2)
        return pixels.unflatten(1, v.shape[2:]).permute(0, 3, 1, 2)


def _norm(x: Tensor) -> Tensor:
    """The norm along the last axis, which remains with size 1."""
    if fast(x) and x.dtype in (torch.float32, torch.float64):
        return x.square().sum(-1, keepdim=True).sqrt()  # four times as fast, but without a gradient at zero
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def _norm_of_all(norms: Sequence[Tensor]) -> Tensor:
    """The norm of vectors of which these are the norms of the parts."""
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(list(norms)), dim=0)


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
        x = x + self.attention(x, other, self.norm)
        return in_bands(self._enhanced, x, channels=self.enhance.dwconv.out_channels, halo=2)

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
        x = in_bands(lambda i, hv: self.conv_in(torch.cat((i, hv), dim=1)), *features, channels=2 * channels, halo=1)
        return in_bands(lambda x: self.conv_out(F.silu(x)), self.norm(x), channels=2 * channels, halo=1)
