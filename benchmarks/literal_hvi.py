"""A literal implementation of HVI-SMM and HVI-CIDNet, with official names: the baseline of benchmarks."""

import torch
from hvi_transform import masked_hvi_to_rgb, masked_rgb_to_hvi
from torch import Tensor, nn
from torch.nn import functional as F

from llie.archs.hvi import CHANNELS, HEADS, HVISMM

Conv = nn.Conv2d


def block0(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.ReplicationPad2d(1), Conv(a, b, 3, bias=False))


class LayerNorm(nn.Module):
    """Over channels, as mean and variance."""

    def __init__(self, c: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        return self.weight[:, None, None] * ((x - mean) / (variance + 1e-6).sqrt()) + self.bias[:, None, None]


class Down(nn.Module):
    """Convolution, half the size, PReLU."""

    def __init__(self, a: int, b: int):
        super().__init__()
        self.down = nn.Sequential(Conv(a, b, 3, padding=1, bias=False), nn.UpsamplingBilinear2d(scale_factor=0.5))
        self.prelu = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.down(x))


class Up(nn.Module):
    """Convolution, twice the size, concatenation, 1x1 convolution, PReLU."""

    def __init__(self, a: int, b: int):
        super().__init__()
        self.up_scale = nn.Sequential(Conv(a, b, 3, padding=1, bias=False), nn.UpsamplingBilinear2d(scale_factor=2))
        self.up = Conv(2 * b, b, 1, bias=False)
        self.prelu = nn.PReLU()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.prelu(self.up(torch.cat([self.up_scale(x), skip], 1)))


class CAB(nn.Module):
    """Channel attention across branches."""

    def __init__(self, c: int, heads: int):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.q, self.q_dwconv = Conv(c, c, 1, bias=False), Conv(c, c, 3, padding=1, groups=c, bias=False)
        self.kv = Conv(c, 2 * c, 1, bias=False)
        self.kv_dwconv = Conv(2 * c, 2 * c, 3, padding=1, groups=2 * c, bias=False)
        self.project_out = Conv(c, c, 1, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q = self.q_dwconv(self.q(x))
        k, v = self.kv_dwconv(self.kv(y)).chunk(2, 1)
        q, k, v = (t.reshape(b, len(self.temperature), -1, h * w) for t in (q, k, v))
        attention = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.project_out((attention.softmax(-1) @ v).reshape(b, c, h, w))


class IEL(nn.Module):
    """Gated feed-forward layer."""

    def __init__(self, c: int):
        super().__init__()
        f = int(2.66 * c)
        self.project_in, self.project_out = Conv(c, 2 * f, 1, bias=False), Conv(f, c, 1, bias=False)
        self.dwconv = Conv(2 * f, 2 * f, 3, padding=1, groups=2 * f, bias=False)
        self.dwconv1 = Conv(f, f, 3, padding=1, groups=f, bias=False)
        self.dwconv2 = Conv(f, f, 3, padding=1, groups=f, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u1, u2 = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out((self.dwconv1(u1).tanh() + u1) * (self.dwconv2(u2).tanh() + u2))


class LCA(nn.Module):
    """One branch of lighten cross-attention."""

    def __init__(self, c: int, heads: int, residual: bool):
        super().__init__()
        self.norm, self.ffn, self.gdfn, self.residual = LayerNorm(c), CAB(c, heads), IEL(c), residual

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = x + self.ffn(self.norm(x), self.norm(y))
        return x + self.gdfn(self.norm(x)) if self.residual else self.gdfn(self.norm(x))


class LiteralSMM(nn.Module):
    """HVI-SMM in official names, or HVI-CIDNet with its official wiring.

    Returns the final image, that without factors (HVI-SMM only), and the exponent, also in evaluation.
    """

    def __init__(self, channels=CHANNELS, heads=HEADS, gamma=0.5, cidnet=False):
        super().__init__()
        c1, c2, c3, c4 = channels
        self.trans = nn.ParameterDict({"density_k": torch.full((1,), 0.2)})
        self.gamma, self.cidnet = gamma, cidnet
        for branch, inputs, outputs in (("I", 1, 1), ("HV", 3, 2)):
            self.add_module(f"{branch}E_block0", block0(inputs, c1))
            self.add_module(f"{branch}D_block0", block0(c1, outputs))
            for level, (a, b) in enumerate(((c1, c2), (c2, c3), (c3, c4)), 1):
                self.add_module(f"{branch}E_block{level}", Down(a, b))
                self.add_module(f"{branch}D_block{level}", Up(b, a))
            for number, level in enumerate((1, 2, 3, 3, 2, 1), 1):
                self.add_module(f"{branch}_LCA{number}", LCA(channels[level], heads[level], branch == "I"))
        if cidnet:
            return
        self.alpha_predictor = nn.ModuleDict(
            {
                "predictor": nn.Sequential(
                    nn.ReplicationPad2d(1),
                    Conv(2 * c1, c1, 3, bias=False),
                    nn.GroupNorm(1, c1),
                    nn.SiLU(),
                    nn.ReplicationPad2d(1),
                    Conv(c1, 2, 3, bias=False),
                )
            }
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        k = self.trans["density_k"]
        hvi = masked_rgb_to_hvi(x, k)
        i0, h0 = self.IE_block0(hvi[:, 2:]), self.HVE_block0(hvi)
        i1, h1 = self.IE_block1(i0), self.HVE_block1(h0)
        j1, g1 = self.I_LCA1(i1, h1), self.HV_LCA1(h1, i1)
        i2, h2 = self.IE_block2(j1), self.HVE_block2(g1)
        j2, g2 = self.I_LCA2(i2, h2), self.HV_LCA2(h2, i2)
        i3, h3 = (self.IE_block3(i2), self.HVE_block3(h2)) if self.cidnet else (self.IE_block3(j2), self.HVE_block3(g2))
        j3, g3 = self.I_LCA3(i3, h3), self.HV_LCA3(h3, i3)
        j4, g4 = self.I_LCA4(j3, g3), self.HV_LCA4(g3, j3)
        i5, h5 = self.ID_block3(j4, j2), self.HVD_block3(g4, g2)
        j5, g5 = self.I_LCA5(i5, h5), self.HV_LCA5(h5, i5)
        i6, h6 = self.ID_block2(i5 if self.cidnet else j5, j1), self.HVD_block2(g5, g1)
        j6, g6 = self.I_LCA6(i6, h6), self.HV_LCA6(h6, i6)
        i7, h7 = self.ID_block1(j6, i0), self.HVD_block1(g6, h0)
        hvi = torch.cat([self.HVD_block0(h7), self.ID_block0(i7)], 1) + hvi
        if self.cidnet:
            return masked_hvi_to_rgb(hvi, k.detach()), k
        scale = 1 + self.gamma * self.alpha_predictor["predictor"](torch.cat([i7, h7], 1)).tanh()
        return masked_hvi_to_rgb(hvi, k, scale[:, 0], scale[:, 1]), masked_hvi_to_rgb(hvi, k), k


def official_names(ours: dict[str, Tensor], literal: nn.Module) -> dict[str, Tensor]:
    """Our weights under the official names, which the card of any network of the family can turn into ours."""
    names = HVISMM.card.official_keys({name: name for name in literal.state_dict()})
    return {official: ours[name] for name, official in names.items()}
