"""A user's file with networks, for `plugins` in option files."""

from torch import nn

from llie.registry import ARCH_REGISTRY, DISCRIMINATOR_REGISTRY


@ARCH_REGISTRY.register()
class TinyNet(nn.Module):
    """Everything that could spoil an exact resume: batch statistics, and dropout."""

    def __init__(self, width: int = 6, dropout: float = 0.2, norm: bool = True):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        return self.last(self.dropout(self.norm(self.first(x)).relu()))


@DISCRIMINATOR_REGISTRY.register()
class TinyJudge(nn.Sequential):
    """One score for each patch, with batch statistics if wanted."""

    def __init__(self, norm: bool = True):
        super().__init__(
            nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.ReLU(), nn.Conv2d(6, 1, 3)
        )
