"""A literal implementation of DRBN's first stage: the baseline of benchmarks."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def up2x(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class DenseBlock(nn.Module):
    """Every layer convolves the concatenation of all maps before it."""

    def __init__(self, g0: int, g: int):
        super().__init__()
        self.convs = nn.ModuleList(conv(g0 + c * g, g) for c in range(4))
        self.LFF = nn.Conv2d(g0 + 4 * g, g0, 1)

    def forward(self, x: Tensor) -> Tensor:
        d = x
        for layer in self.convs:
            d = torch.cat([d, F.relu(layer(d))], 1)
        return self.LFF(d) + x


class LiteralRecursion(nn.Module):
    """One pass through full, half and quarter size."""

    def __init__(self) -> None:
        super().__init__()
        self.SFENet1, self.SFENet2 = conv(6, 16), conv(16, 16)
        self.RDBs = nn.ModuleList(DenseBlock(*size) for size in ((16, 8),) * 2 + ((32, 16),) * 2 + ((16, 8),) * 2)
        self.Down1, self.Down2 = conv(16, 16, 2), conv(16, 32, 2)
        self.Up1, self.Up2 = nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.ConvTranspose2d(32, 16, 4, 2, 1)
        self.UPNet4 = nn.Sequential(conv(32, 16), conv(16, 3))
        self.UPNet2 = nn.Sequential(conv(16, 16), conv(16, 3))
        self.UPNet = nn.Sequential(conv(16, 16), conv(16, 3))

    def forward(self, u: Tensor, p1: Tensor | float, p2: Tensor | float, p4: Tensor | float) -> tuple[Tensor, ...]:
        a = F.relu(self.SFENet1(u))
        f1 = F.relu(self.SFENet2(a))
        f2 = self.Down1(self.RDBs[0](f1))
        f4 = self.Down2(self.RDBs[1](f2))
        f4 = f4 + self.RDBs[3](self.RDBs[2](f4)) + p4
        f2 = f2 + self.RDBs[4](self.Up2(f4)) + p2
        f1 = f1 + self.RDBs[5](self.Up1(f2)) + a + p1
        r4 = self.UPNet4(f4)
        r2 = self.UPNet2(f2) + up2x(r4)
        return self.UPNet(f1) + up2x(r2), r2, r4, f1, f2, f4


class LiteralDRBN(nn.Module):
    """Stage 1 with its published widths, four passes; returns the results at full, half and quarter size."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(1, 5):
            self.add_module(f"recur{number}", LiteralRecursion())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r1, features = x, (0.0, 0.0, 0.0)
        for recursion in self.children():
            r1, r2, r4, *features = recursion(torch.cat([r1, x], 1), *features)
        return r1, r2, r4
