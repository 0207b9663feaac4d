"""A literal implementation of Zero-DCE and its losses: the baseline of its training step."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LiteralZeroDCE(nn.Module):
    """Seven convolutions, then eight curves one after the other; returns the image and the maps."""

    def __init__(self, width: int = 32):
        super().__init__()
        for number in range(1, 8):
            inputs = 3 if number == 1 else width if number < 5 else 2 * width
            self.add_module(f"e_conv{number}", nn.Conv2d(inputs, 24 if number == 7 else width, 3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        conv1, conv2, conv3, conv4, conv5, conv6, conv7 = self.children()
        x1 = F.relu(conv1(x))
        x2 = F.relu(conv2(x1))
        x3 = F.relu(conv3(x2))
        x4 = F.relu(conv4(x3))
        x5 = F.relu(conv5(torch.cat([x3, x4], 1)))
        x6 = F.relu(conv6(torch.cat([x2, x5], 1)))
        curves = torch.tanh(conv7(torch.cat([x1, x6], 1)))
        for strength in torch.split(curves, 3, dim=1):
            x = x + strength * (torch.pow(x, 2) - x)
        return x, curves


def literal_zero_dce_loss(result: Tensor, curves: Tensor, lq: Tensor) -> Tensor:
    """The four published losses with their weights."""
    grey, dark = (F.avg_pool2d(image.mean(1, keepdim=True), 4) for image in (result, lq))
    spatial = 0.0
    for place in ((1, 0), (1, 2), (0, 1), (2, 1)):  # the neighbours above, below, left and right
        kernel = torch.zeros(1, 1, 3, 3)
        kernel[0, 0, 1, 1], kernel[0, 0, place[1], place[0]] = 1, -1
        spatial = spatial + (F.conv2d(dark, kernel, padding=1) - F.conv2d(grey, kernel, padding=1)) ** 2
    exposure = ((F.avg_pool2d(result.mean(1, keepdim=True), 16) - 0.6) ** 2).mean()
    red, green, blue = result.mean((2, 3)).split(1, dim=1)
    colour = (((red - green) ** 2) ** 2 + ((red - blue) ** 2) ** 2 + ((blue - green) ** 2) ** 2) ** 0.5
    height, width = curves.shape[2:]
    down = ((curves[:, :, 1:] - curves[:, :, :-1]) ** 2).sum() / ((height - 1) * width)
    right = ((curves[:, :, :, 1:] - curves[:, :, :, :-1]) ** 2).sum() / (height * (width - 1))
    smoothness = 2 * (down + right) / len(curves)
    return 200 * smoothness + spatial.mean() + 5 * colour.mean() + 10 * exposure
