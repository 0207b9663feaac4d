"""The HVI family: HVI-CIDNet, HVI-SMM and the earlier form of HVI-SMM. One trunk, three ways back to RGB.

The image is converted to the HVI colour space. A U-Net with one branch for intensity (I) and one for colour (HV)
corrects it there; at every level the branches attend to each other (LCA). The result is converted back to RGB.

No convolution in the family has a bias.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.archs.card import Card
from llie.errors import UserError
from llie.ops.bands import Joined, add_tanh, bands, in_bands
from llie.ops.hvi import hvi_to_rgb, rgb_to_hvi
from llie.ops.padding import any_size
from llie.ops.parts import keep
from llie.ops.resizing import conv_and_halve
from llie.registry import ARCH_REGISTRY

CHANNELS = (36, 36, 72, 144)
HEADS = (1, 2, 4, 8)
BLOCKS = r"trunk\.(lca\d\.(i|hv)|(i|hv)_(down|up)\d)"


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
        x = F.interpolate(F.conv2d(x, kernel, padding=1), scale_factor=2, mode="bilinear", align_corners=True)
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
            norms_q.append(torch.linalg.vector_norm(q, dim=-1, keepdim=True))
            norms_k.append(torch.linalg.vector_norm(k, dim=-1, keepdim=True))
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
        x = self.dwconv(self.project_in(x))
        kernel = torch.cat((self.dwconv1.weight, self.dwconv2.weight))  # both halves at once, without a copy
        local = F.conv2d(x, kernel, padding=1, groups=len(kernel))
        left, right = add_tanh(x, local).chunk(2, dim=1)
        return self.project_out(left * right)


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


class Trunk(nn.Module):
    """The two-branch U-Net: HVI (B, 3, H, W) -> its correction, and the last features (B, c0, H, W) of I and HV."""

    def __init__(self, channels: Sequence[int], heads: Sequence[int], norm: str | None, wiring: str):
        super().__init__()
        if len(channels) != 4 or len(heads) != 4:
            raise UserError(f"HVI networks need 4 channels and 4 heads, one per level, not {channels} and {heads}")
        for width, count in zip(channels[1:], heads[1:], strict=True):
            if width % count:
                raise UserError(f"HVI networks: {width} channels cannot be split into {count} heads")
        c0, c1, c2, c3 = channels
        _, n1, n2, n3 = heads  # level 0 has no attention
        self.wiring = wiring

        self.i_stem, self.hv_stem = conv3x3(1, c0, "replicate"), conv3x3(3, c0, "replicate")
        self.i_down1, self.hv_down1 = Down(c0, c1, norm), Down(c0, c1, norm)
        self.i_down2, self.hv_down2 = Down(c1, c2, norm), Down(c1, c2, norm)
        self.i_down3, self.hv_down3 = Down(c2, c3, norm), Down(c2, c3, norm)
        self.i_up3, self.hv_up3 = Up(c3, c2, norm), Up(c3, c2, norm)
        self.i_up2, self.hv_up2 = Up(c2, c1, norm), Up(c2, c1, norm)
        self.i_up1, self.hv_up1 = Up(c1, c0, norm), Up(c1, c0, norm)
        self.i_head, self.hv_head = conv3x3(c0, 1, "replicate"), conv3x3(c0, 2, "replicate")
        self.lca1, self.lca2, self.lca3 = LCA(c1, n1), LCA(c2, n2), LCA(c3, n3)
        self.lca4, self.lca5, self.lca6 = LCA(c3, n3), LCA(c2, n2), LCA(c1, n1)
        if wiring == "official":
            self.lca5.i.requires_grad_(False)  # see forward

    def forward(self, hvi: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        # Channels last is the faster layout for this network on CPU and GPU; all later operations keep it.
        hvi = hvi.contiguous(memory_format=torch.channels_last)
        # `keep`: large images, in strips, store these maps; those of full size would be the largest, and are cheap.
        i0, h0 = self.i_stem(hvi[:, 2:]), self.hv_stem(hvi)
        i1, h1 = keep(*self.lca1(*keep(self.i_down1(i0), self.hv_down1(h0))))
        i2, h2 = keep(self.i_down2(i1), self.hv_down2(h1))
        skip_i2, skip_h2 = keep(*self.lca2(i2, h2))
        if self.wiring == "fixed":
            i2, h2 = skip_i2, skip_h2  # official: the attention of level 2 only reaches the decoder
        i3, h3 = keep(*self.lca3(*keep(self.i_down3(i2), self.hv_down3(h2))))
        i3, h3 = keep(*self.lca4(i3, h3))
        i, h = keep(self.i_up3(i3, skip_i2), self.hv_up3(h3, skip_h2))
        if self.wiring == "fixed":
            i, h = keep(*self.lca5(i, h))
        else:
            h = keep(self.lca5.hv(h, i))  # official: the result of the other half is discarded, so it is never trained
        i, h = keep(*self.lca6(*keep(self.i_up2(i, i1), self.hv_up2(h, h1))))
        i, h = self.i_up1(i, i0), self.hv_up1(h, h0)
        heads = [
            in_bands(head, x, channels=2 * x.shape[1], halo=1) for head, x in ((self.hv_head, h), (self.i_head, i))
        ]
        return torch.cat(heads, dim=1), (i, h)


# Official names -> ours. None of our keys contains an official name, so our own keys pass unchanged.
_RENAMES = {
    "trans.density_k": "density_k",
    "alpha_predictor.predictor.1.": "head.conv_in.",
    "alpha_predictor.predictor.2.": "head.norm.",
    "alpha_predictor.predictor.5.": "head.conv_out.",
    "HVE_block0.1.": "trunk.hv_stem.",
    "IE_block0.1.": "trunk.i_stem.",
    "HVD_block0.1.": "trunk.hv_head.",
    "ID_block0.1.": "trunk.i_head.",
    "HVE_block": "trunk.hv_down",
    "IE_block": "trunk.i_down",
    "HVD_block": "trunk.hv_up",
    "ID_block": "trunk.i_up",
    ".down.0.": ".conv.",
    ".up_scale.0.": ".conv.",
    ".up.": ".merge.",
    ".ffn.": ".attention.",  # officially the attention is called ffn, and the feed-forward layer gdfn
    ".gdfn.": ".enhance.",
}


def official_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The keys of an official checkpoint in our names."""

    def rename(key: str) -> str:
        for official, ours in _RENAMES.items():
            key = key.replace(official, ours)
        return re.sub(r"^(I|HV)_LCA(\d)", lambda match: f"trunk.lca{match[2]}.{match[1].lower()}", key)

    return {rename(key): value for key, value in state.items()}


def detector(factors: int | None) -> Callable[[Mapping[str, Tensor]], dict[str, Any] | None]:
    """A function that reads the constructor arguments from a state dict of the network with that many factors."""

    def detect(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        head = state.get("head.conv_out.weight")
        if "trunk.i_stem.weight" not in state or (None if head is None else len(head)) != factors:
            return None
        convs = ["trunk.i_stem", *(f"trunk.i_down{level}.conv" for level in (1, 2, 3))]
        temperatures = [f"trunk.lca{level}.i.attention.temperature" for level in (1, 2, 3)]
        return {
            "channels": [len(state[f"{conv}.weight"]) for conv in convs],
            "heads": [1, *(len(state[temperature]) for temperature in temperatures)],
            "norm": "trunk.i_down1.norm.weight" in state,
        }

    return detect


class HVINetwork(nn.Module):
    """The common part of the family: colour transform, trunk, and residual in HVI."""

    def __init__(
        self, channels: Sequence[int], heads: Sequence[int], norm: str | None, wiring: str, k_grad_in_inverse: bool
    ):
        super().__init__()
        self.k_grad_in_inverse = k_grad_in_inverse
        self.density_k = nn.Parameter(torch.full((1,), 0.2))
        self.trunk = Trunk(channels, heads, norm, wiring)

    def correct(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """RGB (B, 3, H, W) -> corrected HVI image (B, 3, H, W), last features (B, c0, H, W) of I and HV."""
        hvi = rgb_to_hvi(x, self.density_k).to(x.dtype)
        correction, features = self.trunk(hvi)
        return hvi + correction, features

    def to_rgb(self, hvi: Tensor, *alphas: Tensor | float) -> Tensor:
        """`hvi_to_rgb` with the exponent of the forward transform, which gets a gradient if `k_grad_in_inverse`."""
        k = self.density_k if self.k_grad_in_inverse else self.density_k.detach()
        return hvi_to_rgb(hvi, k, *alphas).to(hvi.dtype)


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


@ARCH_REGISTRY.register()
class HVICIDNet(HVINetwork):
    """HVI-CIDNet.

    Args:
        channels: of the four levels, full size first.
        heads: of the attention at each level; the first is unused (level 0 has none).
        norm: layer normalisation in the resizing blocks; no published weights have it.
        wiring: "official", as for all published weights: the attention of level 2 only reaches the decoder, and half of
            the decoder's first attention is unused (its parameters are frozen); "fixed" uses both.
        k_grad_in_inverse: train the exponent through the inverse transform, too; officially not.
    """

    card = Card(
        paper="HVI: A New Color Space for Low-light Image Enhancement, CVPR 2025",
        url="https://arxiv.org/abs/2502.20272",
        size_multiple=8,
        global_statistics=True,
        blocks=BLOCKS,
        official_keys=official_keys,
        detect=detector(None),
    )

    def __init__(
        self,
        channels: Sequence[int] = CHANNELS,
        heads: Sequence[int] = HEADS,
        norm: bool = False,
        wiring: str = "official",
        k_grad_in_inverse: bool = False,
    ):
        if wiring not in ("official", "fixed"):
            raise UserError(f"HVICIDNet: wiring must be 'official' or 'fixed', not {wiring!r}")
        order = "after" if wiring == "official" else "before"  # each as in its own repository
        super().__init__(channels, heads, order if norm else None, wiring, k_grad_in_inverse)

    @any_size(8)
    def forward_features(self, x: Tensor) -> Tensor:
        """RGB (B, 3, H, W) -> enhanced image in HVI, (B, 3, H, W)."""
        return self.correct(x)[0]

    def forward(
        self, x: Tensor, alpha_s: Tensor | float = 1.0, alpha_i: Tensor | float = 1.0, alpha_rgb: Tensor | float = 1.0
    ) -> Tensor | dict[str, Tensor]:
        """Enhance (B, 3, H, W) in [0, 1]; the controls are those of `llie.ops.hvi.hvi_to_rgb`."""
        hvi = self.forward_features(x)
        out = self.to_rgb(hvi, alpha_s, alpha_i, alpha_rgb)
        return {"out": out, "hvi": hvi, "k": self.density_k} if self.training else out


@ARCH_REGISTRY.register()
class HVISMM(HVINetwork):
    """HVI-SMM: HVI-CIDNet with fixed wiring, and a factor on saturation and one on intensity for each pixel.

    Args:
        channels: of the four levels, full size first.
        heads: of the attention at each level; the first is unused (level 0 has none).
        norm: layer normalisation in the resizing blocks; no published weights have it.
        gamma: the factors lie in [1 - gamma, 1 + gamma].
        k_grad_in_inverse: train the exponent through the inverse transform, too; published weights were not.
    """

    card = Card(
        paper="HVI-SMM: Spatially-Adaptive Correction for Low-Light Image Enhancement, TAIMA 2026",
        url="https://doi.org/10.5281/zenodo.19706049",
        size_multiple=8,
        global_statistics=True,
        blocks=BLOCKS,
        official_keys=official_keys,
        detect=detector(2),
    )

    def __init__(
        self,
        channels: Sequence[int] = CHANNELS,
        heads: Sequence[int] = HEADS,
        norm: bool = False,
        gamma: float = 0.5,
        k_grad_in_inverse: bool = True,
    ):
        super().__init__(channels, heads, "before" if norm else None, "fixed", k_grad_in_inverse)
        self.gamma = gamma
        self.head = ModulationHead(channels[0], factors=2)

    @any_size(8)
    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """RGB (B, 3, H, W) -> enhanced image in HVI, and its factors (B, 2, H, W) on saturation and intensity."""
        hvi, features = self.correct(x)
        return hvi, 1 + self.gamma * self.head(features).tanh()

    def forward(
        self, x: Tensor, alpha_s: Tensor | float = 1.0, alpha_i: Tensor | float = 1.0, alpha_rgb: Tensor | float = 1.0
    ) -> Tensor | dict[str, Tensor]:
        """Enhance (B, 3, H, W) in [0, 1]; the controls are those of `llie.ops.hvi.hvi_to_rgb`.

        In training the output is a dict; its entry "base", the result without the factors, is supervised as well.
        """
        hvi, scale = self.forward_features(x)
        out = self.to_rgb(hvi, alpha_s * scale[:, 0], alpha_i * scale[:, 1], alpha_rgb)
        if not self.training:
            return out
        return {"out": out, "base": self.to_rgb(hvi, alpha_s, alpha_i, alpha_rgb), "hvi": hvi, "k": self.density_k}


@ARCH_REGISTRY.register()
class HVISSM(HVINetwork):
    """The earlier form of HVI-SMM (2025): a factor on saturation, and one on each channel of the result.

    Args:
        channels: of the four levels, full size first.
        heads: of the attention at each level; the first is unused (level 0 has none).
        norm: layer normalisation in the resizing blocks.
        max_scale_factor: f; the factors lie in [1/f, f].
        k_grad_in_inverse: train the exponent through the inverse transform, too; officially not.
    """

    card = Card(
        paper=HVISMM.card.paper + " (earlier form)",
        url=HVISMM.card.url,
        size_multiple=8,
        global_statistics=True,
        blocks=BLOCKS,
        official_keys=official_keys,
        detect=detector(4),
    )

    def __init__(
        self,
        channels: Sequence[int] = CHANNELS,
        heads: Sequence[int] = HEADS,
        norm: bool = False,
        max_scale_factor: float = 1.2,
        k_grad_in_inverse: bool = False,
    ):
        super().__init__(channels, heads, "before" if norm else None, "fixed", k_grad_in_inverse)
        self.max_scale_factor = max_scale_factor
        self.head = ModulationHead(channels[0], factors=4)

    @any_size(8)
    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """RGB (B, 3, H, W) -> enhanced image in HVI, and its factors (B, 4, H, W) on saturation, R, G and B."""
        hvi, features = self.correct(x)
        low = 1 / self.max_scale_factor
        return hvi, low + self.head(features).sigmoid() * (self.max_scale_factor - low)

    def forward(
        self, x: Tensor, alpha_s: Tensor | float = 1.0, alpha_i: Tensor | float = 1.0, alpha_rgb: Tensor | float = 1.0
    ) -> Tensor | dict[str, Tensor]:
        """Enhance (B, 3, H, W) in [0, 1]; the result may exceed 1. The controls are those of `hvi_to_rgb`."""
        hvi, scale = self.forward_features(x)
        out = self.to_rgb(hvi, alpha_s * scale[:, 0], alpha_i, alpha_rgb * scale[:, 1:])
        return {"out": out, "hvi": hvi, "k": self.density_k} if self.training else out
