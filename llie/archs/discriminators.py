"""Discriminators: networks that score how much an image looks like a real photograph, for adversarial training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.errors import UserError
from llie.ops.winograd import Conv3x3
from llie.registry import DISCRIMINATOR_REGISTRY


@DISCRIMINATOR_REGISTRY.register()
class DRBNDiscriminator(nn.Module):
    """The discriminator of DRBN's second stage (Yang et al., CVPR 2020); parameter names are the official ones.

    Four pairs of convolutions, the second of each pair with stride 2. Besides the image, it gets the three values of
    each pixel in ascending order, which describe darkness and saturation independently of the hue.

    Args:
        width: channels of the first pair of convolutions; each further pair has twice as many.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        if width < 1:
            raise UserError(f"DRBNDiscriminator: width must be at least 1, not {width}")
        self.conv1 = nn.Conv2d(6, width, 3, padding=1)
        inputs = width
        for number, wider in enumerate((1, 2, 2, 4, 4, 8, 8), start=2):
            outputs, stride = wider * width, 2 if number % 2 == 0 else 1
            conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1) if stride > 1 else Conv3x3(inputs, outputs)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(outputs))
            inputs = outputs
        # The padding of the 1x1 convolution adds a border with the value of the bias, which counts in the mean.
        self.conv9 = nn.Conv2d(inputs, 1, 1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> scores (B, 1) between 0 (fake) and 1 (real).

        Raises:
            UserError: in training, a single image of at most 16x16 pixels: batch norm has no statistics of one value.
        """
        if self.training and len(x) == 1 and max(x.shape[-2:]) <= 16:
            raise UserError("DRBNDiscriminator cannot learn from one image of 16x16 pixels; raise gt_size or the batch")
        x = F.relu(self.conv1(torch.cat([x, x.sort(dim=1).values], dim=1)))
        for number in range(2, 9):
            x = F.relu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x)))
        mean_dtype = torch.promote_types(x.dtype, torch.float32)  # half precision would round the score
        return self.conv9(x).mean((2, 3), dtype=mean_dtype).sigmoid()
