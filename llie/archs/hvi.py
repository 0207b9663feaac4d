"""The HVI family: HVI-CIDNet, HVI-SMM and the earlier form of HVI-SMM. One trunk, three ways back to RGB.

The image is converted to the HVI colour space. A U-Net with one branch for intensity (I) and one for colour (HV)
corrects it there; at every level the branches attend to each other (LCA). The result is converted back to RGB.

The layers of the U-Net are in `hvi_blocks.py`; `hvi_weights.py` reads official checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from llie.archs.card import Card
from llie.archs.hvi_blocks import LCA, Down, ModulationHead, Up, conv3x3, convolve_maps
from llie.archs.hvi_weights import detector, official_keys
from llie.errors import UserError
from llie.ops.hvi import hvi_to_rgb, rgb_to_hvi
from llie.ops.padding import any_size
from llie.ops.parts import keep
from llie.registry import ARCH_REGISTRY

CHANNELS = (36, 36, 72, 144)
HEADS = (1, 2, 4, 8)
BLOCKS = r"trunk\.(lca\d\.(i|hv)|(i|hv)_(down|up)\d)"


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
        # `keep`: large images, in strips, store these maps; i0 and h0 would be the largest, and are cheap.
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
        i, h = self.i_up1(i, i0, hvi[:, 2:], self.i_stem), self.hv_up1(h, h0, hvi, self.hv_stem)
        return torch.cat([convolve_maps(self.hv_head, h), convolve_maps(self.i_head, i)], dim=1), (i, h)


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
        return keep(hvi), 1 + self.gamma * self.head(features).tanh()

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
        hvi = keep(hvi)
        low = 1 / self.max_scale_factor
        return hvi, low + self.head(features).sigmoid() * (self.max_scale_factor - low)

    def forward(
        self, x: Tensor, alpha_s: Tensor | float = 1.0, alpha_i: Tensor | float = 1.0, alpha_rgb: Tensor | float = 1.0
    ) -> Tensor | dict[str, Tensor]:
        """Enhance (B, 3, H, W) in [0, 1]; the result may exceed 1. The controls are those of `hvi_to_rgb`."""
        hvi, scale = self.forward_features(x)
        out = self.to_rgb(hvi, alpha_s * scale[:, 0], alpha_i, alpha_rgb * scale[:, 1:])
        return {"out": out, "hvi": hvi, "k": self.density_k} if self.training else out
