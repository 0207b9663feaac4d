"""A literal implementation of HDM: the baseline of benchmarks.

torchvision's deformable convolution; all region kernels everywhere, then the mask; transposed convolution, padding and
mean; the three output convolutions one by one. It computes the regions by the same function as ours.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from llie.ops.dark_channel import haze_regions


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


class Attention(nn.Module):
    """Channel or pixel attention, as the product."""

    def __init__(self, name: str, c: int, outputs: int):
        super().__init__()
        self.pool = name == "ca"
        layers = nn.Sequential(nn.Conv2d(c, c // 8, 1), nn.ReLU(), nn.Conv2d(c // 8, outputs, 1), nn.Sigmoid())
        self.add_module(name, layers)

    def forward(self, x: Tensor) -> Tensor:
        (layers,) = self.children()
        return x * layers(F.adaptive_avg_pool2d(x, 1) if self.pool else x)


class Block(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.conv1, self.conv2 = conv(c, c), conv(c, c)
        self.calayer, self.palayer = Attention("ca", c, c), Attention("pa", c, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x)) + x
        return self.palayer(self.calayer(self.conv2(y))) + x


class Group(nn.Module):
    def __init__(self, c: int, blocks: int):
        super().__init__()
        self.gp = nn.Sequential(*(Block(c) for _ in range(blocks)), conv(c, c))

    def forward(self, x: Tensor) -> Tensor:
        return self.gp(x) + x


class Deformable(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(c, c, 3, 3)), nn.Parameter(torch.empty(c))
        self.conv_offset_mask = conv(c, 27)

    def forward(self, x: Tensor) -> Tensor:
        o = self.conv_offset_mask(x)
        return deform_conv2d(x, o[:, :18], self.weight, self.bias, padding=1, mask=o[:, 18:].sigmoid())


class Region(nn.Module):
    """All R products by one grouped convolution, times the mask, summed."""

    def __init__(self, c: int, r: int):
        super().__init__()
        self.conv_kernel = nn.Sequential(
            nn.AdaptiveAvgPool2d(3), nn.Conv2d(c, r * r, 1), nn.Sigmoid(), nn.Conv2d(r * r, r * c * c, 1, groups=r)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernels = self.conv_kernel(x).reshape(-1, c, 3, 3)
        products = F.conv2d(x.reshape(1, b * c, h, w), kernels, padding=1, groups=b)
        return (products.reshape(b, -1, c, h, w) * mask).sum(1)


class Up(nn.Sequential):
    def __init__(self, c: int):
        super().__init__(
            nn.ConvTranspose2d(c, c, 4, 2, 1), nn.ReflectionPad2d((1, 0, 1, 0)), nn.AvgPool2d(2, 1), nn.ReLU()
        )


class Mix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        s = self.w.sigmoid()
        return u * s.expand_as(u) + v * (1 - s.expand_as(v))


class LiteralHDM(nn.Module):
    """The "mask" variant, with the names of ours; sizes divisible by four."""

    def __init__(self, c: int = 64, blocks: int = 9, regions: int = 5):
        super().__init__()
        self.regions = regions
        self.conv0 = nn.Sequential(conv(3, c, 5), nn.ReLU())
        self.conv1 = nn.Sequential(conv(c, c), conv(c, c, stride=2), nn.ReLU())
        self.conv2 = nn.Sequential(conv(c, c), conv(c, c, stride=2), nn.ReLU())
        self.FAB = nn.Sequential(*(Group(c, blocks) for _ in range(3)), nn.ReLU())
        self.dcn_block = nn.ModuleDict({"dcn": Deformable(c)})
        self.drconv_phy = Region(c, regions)
        self.mix1, self.mix2 = Mix(), Mix()
        self.deconv1, self.deconv2 = Up(c), Up(c)
        self.output = nn.Sequential(conv(c, c, 5), conv(c, c, 5), conv(c, 3, 5), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        mask = F.one_hot(haze_regions(x, self.regions), self.regions).permute(0, 3, 1, 2)[:, :, None].to(x.dtype)
        r1 = self.conv1(self.conv0(x))
        r2 = self.conv2(r1)
        y = self.FAB(r2)
        for _ in range(2):
            y = self.drconv_phy(self.dcn_block["dcn"](y), mask)
        y = self.mix2(r1, self.deconv1(self.mix1(r2, y)))
        return self.output(self.deconv2(y))
