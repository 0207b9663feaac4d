"""Dawn: llie's own network for photographs, from night to well lit, of any size.

Two parts, each with one task:

    tone    sees a thumbnail of the whole photograph, of fixed size, and decides how much light is missing where: a grid
            of gains over (luma, height, width), read at every pixel by its position and brightness. This is the
            bilateral grid of Gharbi et al., "Deep Bilateral Learning for Real-Time Image Enhancement", SIGGRAPH 2017.
    detail  a small U-Net (Ronneberger et al., MICCAI 2015) at full resolution that gets the gain as an input and
            removes the noise that it amplified.

    toned  = x * exp(gain)
    result = toned + denoise * detail(toned, gain)

The only global decision is the grid, a few thousand numbers. Everything at full resolution is local, so strips with a
margin of `card.halo` pixels give exactly the result of the whole image, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llie.archs.card import Card
from llie.ops.bilateral_grid import log_scale, make_thumbnail, slice_grid
from llie.ops.constants import constant
from llie.ops.padding import pad_to_multiple
from llie.ops.winograd import Conv3x3
from llie.registry import ARCH_REGISTRY


def start_near_zero(layer: nn.Module) -> None:
    """Training starts from a network that does not change photographs."""
    nn.init.normal_(layer.weight, std=1e-3)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


class Residual(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int):
        super().__init__()
        self.expand = Conv3x3(width, width)
        self.project = Conv3x3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.expand(x, relu=True), added=x)


class Tone(nn.Module):
    """Thumbnail (B, 3, 128, 128) -> logarithmic gains (B, 3, luma, rows, columns), near zero before training."""

    def __init__(self, width: int, luma: int):
        super().__init__()
        self.luma = luma
        self.local = nn.Sequential(
            nn.Conv2d(6, width // 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 4, width // 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.ReLU(),
            Residual(width),
            Residual(width),
        )
        # The average hides a lamp in a dark room, the maximum hides the room: the network needs both.
        self.overall = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))
        self.gains = nn.Sequential(Residual(width), nn.ReLU(), nn.Conv2d(width, 3 * luma, 1))
        self.dropout = nn.Dropout2d(0.15)  # with few scenes, it must not recognise a thumbnail by a few features
        start_near_zero(self.gains[-1])

    def forward(self, thumbnail: Tensor) -> Tensor:
        features = self.local(torch.cat([thumbnail, log_scale(thumbnail)], dim=1))
        summary = self.overall(torch.cat([features.mean((-2, -1)), features.amax((-2, -1))], dim=1))
        return self.gains(self.dropout(features + summary[..., None, None])).unflatten(1, (3, self.luma))


class Detail(nn.Module):
    """Toned image and gain (B, 4, H, W), sides divisible by 8 -> correction (B, 3, H, W), near zero before training."""

    def __init__(self, widths: tuple[int, int, int]):
        super().__init__()
        fine, middle, coarse = widths
        self.head = Conv3x3(4 * 4, fine)
        self.encode_fine = Residual(fine)
        self.to_middle = nn.Conv2d(fine, middle, 2, stride=2)
        self.encode_middle = Residual(middle)
        self.to_coarse = nn.Conv2d(middle, coarse, 2, stride=2)
        self.bottom = nn.Sequential(Residual(coarse), Residual(coarse))
        self.from_coarse = nn.ConvTranspose2d(coarse, middle, 2, stride=2)
        self.decode_middle = Residual(middle)
        self.from_middle = nn.ConvTranspose2d(middle, fine, 2, stride=2)
        self.decode_fine = Residual(fine)
        self.tail = Conv3x3(fine, 3 * 4)
        start_near_zero(self.tail)

    def forward(self, toned_and_gain: Tensor) -> Tensor:
        fine = self.encode_fine(self.head(F.pixel_unshuffle(toned_and_gain, 2)))
        middle = self.encode_middle(self.to_middle(fine))
        coarse = self.bottom(self.to_coarse(middle))
        middle = self.decode_middle(middle + self.from_coarse(coarse))
        fine = self.decode_fine(fine + self.from_middle(middle))
        return F.pixel_shuffle(self.tail(fine), 2)


def _detect(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Constructor arguments from the shapes of a state dict with our keys."""
    if not {"tone.gains.2.weight", "detail.tail.weight"} <= state.keys():
        return None
    widths = [len(state[f"detail.{name}.bias"]) for name in ("head", "to_middle", "to_coarse")]
    gains = state["tone.gains.2.weight"]
    return {"tone_width": gains.shape[1], "luma": len(gains) // 3, "detail_widths": widths}


@ARCH_REGISTRY.register()
class Dawn(nn.Module):
    """Brightens photographs from night to well lit; see the top of this file.

    Args:
        tone_width: channels of the tone part.
        luma: grid points along the brightness of a pixel.
        detail_widths: channels of the detail part at 1/2, 1/4 and 1/8 of the resolution.
    """

    card = Card(
        paper="llie's own network: a bilateral grid of gains (Gharbi et al., SIGGRAPH 2017) and a small U-Net",
        url="https://arxiv.org/abs/1707.02880",
        size_multiple=8,
        global_statistics=True,
        halo=72,
        precise=("tone",),
        detect=_detect,
        training_inputs=("thumbnail", "region"),
    )

    def __init__(self, tone_width: int = 64, luma: int = 8, detail_widths: tuple[int, int, int] = (32, 64, 96)):
        super().__init__()
        self.tone = Tone(tone_width, luma)
        self.detail = Detail(tuple(detail_widths))  # type: ignore[arg-type]

    def forward(
        self,
        x: Tensor,
        denoise: Tensor | float = 1.0,
        thumbnail: Tensor | None = None,
        region: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Enhance x.

        Args:
            x: (B, 3, H, W) in [0, 1], any size.
            denoise: share of the detail part's correction that is applied, 0 to 1.
            thumbnail: (B, 3, 128, 128), of the photographs that x was cropped from; computed from x when None.
            region: (B, 4), position of each crop in its photograph: top, bottom, left, right, each in [0, 1].

        Returns:
            The enhanced image at the size of x; while training, a dict with it as "out", and the image before noise
            removal as "toned".
        """
        with torch.autocast(x.device.type, enabled=False):  # a gain rounded to 8 bits would change the brightness
            grid = self.decide(make_thumbnail(x) if thumbnail is None else thumbnail)
        result, toned = self.render(x, grid, region, denoise)
        return {"out": result, "toned": toned} if self.training else result

    def decide(self, thumbnail: Tensor) -> Tensor:
        """The global decision for each photograph: its grid of logarithmic gains, (B, 3, luma, rows, columns)."""
        return self.tone(thumbnail)

    def render(
        self, x: Tensor, grid: Tensor, region: Tensor | None = None, denoise: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """The enhanced image and the image before noise removal, given the decision.

        Each pixel depends on `grid` and on x within `card.halo` pixels. Parts of a photograph whose `region` begins at
        multiples of 8 pixels give the same result as the whole.
        """
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, 8)
        if region is None:
            region = constant([[0.0, 1.0, 0.0, 1.0]], x)
        region = _extended(region.to(x), x.shape[-2] / height, x.shape[-1] / width)
        with torch.autocast(x.device.type, enabled=False):
            gain = slice_grid(grid, x, region)
            toned = x * torch.exp(gain)
        result = toned
        if isinstance(denoise, Tensor) or denoise != 0:
            result = toned + denoise * self.detail(torch.cat([toned, gain.mean(1, keepdim=True)], dim=1))
        return result[..., :height, :width], toned[..., :height, :width]


def _extended(region: Tensor, down: float, across: float) -> Tensor:
    """The region (B, 4) of an image that was padded at the bottom and right to `down` and `across` times its size."""
    top, bottom, left, right = region.unbind(1)
    return torch.stack([top, torch.lerp(top, bottom, down), left, torch.lerp(left, right, across)], dim=1)
