"""A literal implementation of SNR-Aware: the baseline of benchmarks, and the reference for gradients in tests."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Conv = nn.Conv2d


def literal_snr_map(x: Tensor) -> Tensor:
    """The map (B, 1, H, W) of images of at least 3x3 pixels."""

    def grey(image: Tensor) -> Tensor:
        return 0.299 * image[:, 0:1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:3]

    dark = grey(x)
    light = grey(F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), 5, stride=1))
    ratio = light / ((dark - light).abs() + 1e-4)
    return (ratio / (ratio.amax((1, 2, 3), keepdim=True) + 1e-4)).clamp(0, 1)


class Block(nn.Module):
    """Residual block."""

    def __init__(self, c: int):
        super().__init__()
        self.conv1, self.conv2 = Conv(c, c, 3, padding=1), Conv(c, c, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class Attention(nn.Module):
    """All scores as one matrix; those of keys outside the mask replaced."""

    def __init__(self, d: int):
        super().__init__()
        self.layer_norm = nn.LayerNorm(d, eps=1e-6)
        self.w_qs, self.w_ks, self.w_vs = (nn.Linear(d, d // 2, bias=False) for _ in range(3))
        self.fc = nn.Linear(d // 2, d, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n = self.layer_norm(x)
        q, k, v = (w(n).view(*n.shape[:2], 8, -1).transpose(1, 2) for w in (self.w_qs, self.w_ks, self.w_vs))
        scores = q / q.shape[-1] ** 0.5 @ k.transpose(2, 3)
        attention = scores.masked_fill(mask[:, None] == 0, -1e9).softmax(-1)
        return x + self.fc((attention @ v).transpose(1, 2).reshape(*n.shape[:2], -1))


class FeedForward(nn.Module):
    """Two linear layers."""

    def __init__(self, d: int):
        super().__init__()
        self.layer_norm = nn.LayerNorm(d, eps=1e-6)
        self.w_1, self.w_2 = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.w_2(F.relu(self.w_1(self.layer_norm(x))))


class LiteralSNRAware(nn.Module):
    """SNR-Aware in official names, for sizes that are multiples of 4."""

    def __init__(self, nf: int = 64, front_blocks: int = 1, back_blocks: int = 1, layers: int = 6):
        super().__init__()
        d = 16 * nf
        self.conv_first_1 = Conv(3, nf, 3, 1, 1)
        self.conv_first_2 = Conv(nf, nf, 3, 2, 1)
        self.conv_first_3 = Conv(nf, nf, 3, 2, 1)
        self.feature_extraction = nn.Sequential(*(Block(nf) for _ in range(front_blocks)))
        self.recon_trunk = nn.Sequential(*(Block(nf) for _ in range(back_blocks)))
        self.recon_trunk_light = nn.Sequential(*(Block(nf) for _ in range(6)))
        self.transformer = nn.ModuleDict()
        self.transformer["layer_stack"] = nn.ModuleList(
            nn.ModuleDict({"slf_attn": Attention(d), "pos_ffn": FeedForward(d)}) for _ in range(layers)
        )
        self.upconv1, self.upconv2 = Conv(2 * nf, 4 * nf, 3, 1, 1), Conv(2 * nf, 4 * nf, 3, 1, 1)
        self.HRconv, self.conv_last = Conv(2 * nf, nf, 3, 1, 1), Conv(nf, 3, 3, 1, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """The three features of the stem, and the one that the branches start from."""
        f1 = F.leaky_relu(self.conv_first_1(x), 0.1)
        f2 = F.leaky_relu(self.conv_first_2(f1), 0.1)
        f3 = F.leaky_relu(self.conv_first_3(f2), 0.1)
        return f1, f2, f3, self.feature_extraction(f3)

    def decode(self, x: Tensor, mask: Tensor, f1: Tensor, f2: Tensor, f3: Tensor, f: Tensor) -> Tensor:
        """The enhanced image from these features."""
        c, h, w = f.shape[1:]
        near = self.recon_trunk_light(f)
        m = F.interpolate(mask, (h, w), mode="nearest")
        tokens = F.unfold(f, 4, stride=4).transpose(1, 2)
        keys = F.unfold(m, 4, stride=4).transpose(1, 2).mean(2)[:, None]
        keys = torch.where(keys <= 0.5, torch.zeros_like(keys), keys)
        for layer in self.transformer["layer_stack"]:
            tokens = layer["pos_ffn"](layer["slf_attn"](tokens, keys))
        far = F.fold(tokens.transpose(1, 2), (h, w), 4, stride=4)
        m = m.repeat(1, c, 1, 1)
        y = self.recon_trunk(far * (1 - m) + near * m)
        y = F.leaky_relu(F.pixel_shuffle(self.upconv1(torch.cat([y, f3], 1)), 2), 0.1)
        y = F.leaky_relu(F.pixel_shuffle(self.upconv2(torch.cat([y, f2], 1)), 2), 0.1)
        y = F.leaky_relu(self.HRconv(torch.cat([y, f1], 1)), 0.1)
        return self.conv_last(y) + x

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = literal_snr_map(x) if mask is None else mask
        return self.decode(x, mask, *self.encode(x))
