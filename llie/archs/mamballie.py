"""MambaLLIE: a three-level U-Net whose blocks mix globally by a 2-D state space, then locally, guided by illumination.

Weng et al., "MambaLLIE: Implicit Retinex-Aware Low Light Enhancement with Global-then-Local State Space",
NeurIPS 2024, https://arxiv.org/abs/2405.16105. Parameter names are those of the official checkpoints.
Every feature map is (B, C, H, W) in channels-last memory, so norms, projections and scans read it without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.archs.card import Card
from llie.errors import UserError
from llie.ops.depthwise import SmallConv
from llie.ops.padding import any_size
from llie.ops.parts import keep, scanned
from llie.ops.ss2d import ss2d
from llie.ops.ss2d_blocks import ROWS, BlockScan, Weights
from llie.ops.winograd import Conv3x3
from llie.registry import ARCH_REGISTRY


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of every pixel of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; the layout stays channels last."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PixelLinear(nn.Linear):
    """A linear layer on every pixel of (B, C, H, W), as a 1x1 convolution, which is faster on CPUs."""

    def forward(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """Compute the output channels that `rows` selects."""
        return F.conv2d(x, self.weight[rows, :, None, None])


class LESSM(nn.Module):
    """Local-enhanced state space: four scans of the image, plus a local bias computed from the prior."""

    def __init__(self, width: int, d_state: int, expand: float, scan_backend: str = "auto"):
        super().__init__()
        inner = int(expand * width)
        rank = math.ceil(width / 16)
        self.inner = inner
        self.scan_backend = scan_backend
        self.in_proj = PixelLinear(width, 2 * inner, bias=False)
        self.conv2d = SmallConv(inner, inner, 3, groups=inner)
        self.conv2d_2 = SmallConv(inner, inner, 3, groups=inner)
        self.out_norm = ChannelNorm(inner)
        self.out_proj = PixelLinear(inner, width, bias=False)

        # The scan, direction-major: rows, columns, rows backwards, columns backwards.
        self.x_proj_weight = nn.Parameter(torch.empty(4, rank + 2 * d_state, inner).uniform_(-1, 1) / math.sqrt(inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(4, inner, rank).uniform_(-1, 1) / math.sqrt(rank))
        # Step sizes start log-uniform in [0.001, 0.1]; the bias is their inverse under softplus.
        step = torch.exp(torch.rand(4, inner) * math.log(0.1 / 0.001) + math.log(0.001)).clamp(min=1e-4)
        self.dt_projs_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.A_logs = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(4 * inner, 1))
        self.Ds = nn.Parameter(torch.ones(4 * inner))

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        """X (B, width, H, W) and prior (B, inner, H, W) -> (B, width, H, W)."""
        y = self.out_norm(self._scan(x) + F.silu(self.conv2d_2(prior)))
        # The gate is projected only now: computed before the scan, it would be the largest tensor in memory during it.
        return self.out_proj(y * F.silu(self.in_proj(x, slice(self.inner, None))))

    def _scan(self, x: Tensor) -> Tensor:
        content = F.silu(self.conv2d(self.in_proj(x, slice(self.inner))))
        _, channels, _, width = content.shape
        states = self.A_logs.shape[1]
        return scanned(self._scan_image, content, lambda: BlockScan(self._weights, states, channels, width, ROWS))

    def _scan_image(self, content: Tensor) -> Tensor:
        return ss2d(content.permute(0, 2, 3, 1), *self._weights()).permute(0, 3, 1, 2)

    def _weights(self) -> Weights:
        A_log, D = (parameter.unflatten(0, (4, -1)) for parameter in (self.A_logs, self.Ds))
        return Weights(self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, A_log, D, self.scan_backend)


class IRSK(nn.Module):
    """Implicit Retinex-aware selective kernel: a 3x3 and a 5x5 branch, weighted per pixel by the prior."""

    def __init__(self, width: int, expand: float):
        super().__init__()
        inner = int(expand * width)
        self.project_in = nn.Conv2d(width, inner, 1)
        self.dwconv = SmallConv(inner, inner, 3, groups=inner)
        self.dwconv2 = SmallConv(inner, inner, 5, groups=inner)
        self.dwconv3 = SmallConv(inner, 2, 3)  # the two gates; not depthwise, despite its official name
        self.dwconv4 = SmallConv(inner, inner, 3, groups=inner)
        self.project_out = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        """X (B, width, H, W) and prior (B, inner, H, W) -> (B, width, H, W)."""
        gate_small, gate_large = self.dwconv3(prior).sigmoid().chunk(2, dim=1)
        x = self.project_in(x)
        small = self.dwconv(x)
        large = self.dwconv2(small) * gate_large
        kernels = torch.addcmul(large, small, gate_small)
        del small, large  # memory of large images peaks here
        return self.project_out(F.gelu(self.dwconv4(torch.addcmul(x, x, kernels))))


class GLSSB(nn.Module):
    """Global-then-local block: LESSM, then IRSK, both on residual paths, guided by a prior that each block updates."""

    def __init__(self, width: int, d_state: int, expand: float, scan_backend: str = "auto"):
        super().__init__()
        inner = int(expand * width)
        self.conv2d = SmallConv(inner, inner, 3, groups=width, bias=False)
        self.ln_1 = ChannelNorm(width)
        self.ss2d = LESSM(width, d_state, expand, scan_backend)
        self.ln_2 = ChannelNorm(width)
        self.ffn = IRSK(width, expand)
        self.dropout = nn.Dropout(0.1)  # on the residual stream itself, as in the official code

    def update(self, prior: Tensor) -> Tensor:
        """The prior of this block, from which the next block computes its own, (B, inner, H, W)."""
        return F.gelu(self.conv2d(prior))

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        """X (B, width, H, W) and updated prior (B, inner, H, W) -> (B, width, H, W)."""
        x = self.dropout(x)
        x = x + self.ss2d(self.ln_1(x), prior)
        return keep(x + self.ffn(self.ln_2(x), prior))


def _detect(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    if "conv_first_1.weight" not in state or "VSSB_1.0.ss2d.A_logs" not in state:
        return None
    nf = state["conv_first_1.weight"].shape[0]
    stages = [{key.split(".")[1] for key in state if key.startswith(f"VSSB_{s}.")} for s in range(1, 7)]
    return {
        "nf": nf,
        "depths": [len(blocks) for blocks in stages],
        "d_state": state["VSSB_1.0.ss2d.A_logs"].shape[1],
        "mlp_ratio": state["VSSB_1.0.conv2d.weight"].shape[0] / nf,
    }


@ARCH_REGISTRY.register()
class MambaLLIE(nn.Module):
    """MambaLLIE; defaults: the paper's 2.29 M network; preset `mamballie_48`: that of the official option files.

    Args:
        nf: width at full resolution.
        depths: blocks in each of the six stages (two encoders, two at the bottom, two decoders).
        d_state: states per channel of the scan.
        mlp_ratio: inner width of a block over its width.
        embed_dim: for official option files; must equal nf.
        scan_backend: see `llie.ops.selective_scan.selective_scan`.
        img_size: for official option files; without effect, as in the official network.
        patch_size: see `img_size`.
        num_layer: see `img_size`.

    Raises:
        UserError: arguments that do not fit together.
    """

    card = Card(
        paper="MambaLLIE: Implicit Retinex-Aware Low Light Enhancement with Global-then-Local State Space, 2024",
        url="https://arxiv.org/abs/2405.16105",
        size_multiple=4,
        global_statistics=True,  # a scan carries state across the whole image
        blocks=r"VSSB_\d\.\d+",
        presets={
            "mamballie": {"nf": 32, "depths": (1, 2, 2, 2, 2, 2)},
            "mamballie_48": {"nf": 48, "depths": (1, 2, 2, 2, 2, 1)},
        },
        detect=_detect,
    )

    def __init__(
        self,
        nf: int = 32,
        depths: Sequence[int] = (1, 2, 2, 2, 2, 2),
        d_state: int = 32,
        mlp_ratio: float = 2.0,
        embed_dim: int | None = None,
        scan_backend: str = "auto",
        img_size: int = 128,
        patch_size: int = 1,
        num_layer: int = 3,
    ):
        super().__init__()
        if embed_dim not in (None, nf):
            raise UserError(f"MambaLLIE: embed_dim ({embed_dim}) must equal nf ({nf}); leave it out")
        if len(depths) != 6 or min(depths) < 1:
            raise UserError(f"MambaLLIE: depths must be six numbers of blocks, each at least 1, not {list(depths)}")
        if mlp_ratio < 1 or mlp_ratio != int(mlp_ratio):
            raise UserError(f"MambaLLIE: mlp_ratio must be a whole number of at least 1, not {mlp_ratio}")

        def stage(width: int, depth: int) -> nn.ModuleList:
            return nn.ModuleList(GLSSB(width, d_state, mlp_ratio, scan_backend) for _ in range(depth))

        def prior(width: int) -> nn.Conv2d:
            return nn.Conv2d(5, int(width * mlp_ratio), 3, padding=1)

        self.conv_first_1 = nn.Conv2d(3, nf, 3, padding=1, bias=False)
        self.conv_first_1_fea = prior(nf)
        self.VSSB_1 = stage(nf, depths[0])
        self.conv_first_2 = nn.Conv2d(nf, 2 * nf, 4, stride=2, padding=1, bias=False)
        self.conv_first_2_fea = prior(2 * nf)
        self.VSSB_2 = stage(2 * nf, depths[1])
        self.conv_first_3 = nn.Conv2d(2 * nf, 4 * nf, 4, stride=2, padding=1, bias=False)
        self.conv_first_3_fea = prior(4 * nf)
        self.VSSB_3 = stage(4 * nf, depths[2])
        self.conv_first_4 = Conv3x3(4 * nf, 4 * nf, bias=False)
        self.conv_first_4_fea = prior(4 * nf)
        self.VSSB_4 = stage(4 * nf, depths[3])
        self.upconv1 = nn.ConvTranspose2d(4 * nf, 2 * nf, 2, stride=2)
        self.conv_first_5 = Conv3x3(4 * nf, 2 * nf, bias=False)
        self.conv_first_5_fea = prior(2 * nf)
        self.VSSB_5 = stage(2 * nf, depths[4])
        self.upconv2 = nn.ConvTranspose2d(2 * nf, nf, 2, stride=2)
        self.conv_first_6 = Conv3x3(2 * nf, nf, bias=False)
        self.conv_first_6_fea = prior(nf)
        self.VSSB_6 = stage(nf, depths[5])
        self.out_embed = SmallConv(nf, 3, 3)

    @any_size(4)
    def forward(self, x: Tensor) -> Tensor:
        """X (B, 3, H, W) in [0, 1], any size -> the enhanced image, same shape, not clamped."""
        x = x.contiguous(memory_format=torch.channels_last)
        # The illumination prior: the image with its largest and its mean channel, at three scales.
        light_1 = torch.cat([x, x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        light_1 = light_1.contiguous(memory_format=torch.channels_last)  # a single channel has either layout
        light_2, light_4 = keep(F.avg_pool2d(light_1, 2), F.avg_pool2d(light_1, 4))

        # What a stage begins with takes less memory in strips than what it is computed from, or little more.
        e1 = self._stage(self.VSSB_1, self.conv_first_1(x), self.conv_first_1_fea(light_1))
        e2 = self._stage(self.VSSB_2, keep(self.conv_first_2(e1)), self.conv_first_2_fea(light_2))
        e3 = self._stage(self.VSSB_3, keep(self.conv_first_3(e2)), self.conv_first_3_fea(light_4))
        b = self._stage(self.VSSB_4, keep(self.conv_first_4(e3)), self.conv_first_4_fea(light_4))
        merged = keep(self.conv_first_5(torch.cat([self.upconv1(b), e2], dim=1)))
        d2 = self._stage(self.VSSB_5, merged, self.conv_first_5_fea(light_2))
        merged = keep(self.conv_first_6(torch.cat([self.upconv2(d2), e1], dim=1)))
        del e1, e2, e3, b, d2  # before the last stage, where memory of large images peaks
        d1 = self._stage(self.VSSB_6, merged, self.conv_first_6_fea(light_1))
        return self.out_embed(d1) + x

    def _stage(self, blocks: nn.ModuleList, x: Tensor, prior: Tensor) -> Tensor:
        block: Any
        for block in blocks:
            prior = block.update(prior)  # a separate step, so that the old prior is freed before the scan
            x = block(x, prior)
        return x
