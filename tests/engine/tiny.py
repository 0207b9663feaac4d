"""A model and a loader that train in milliseconds: all that the engine's tests need."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.engine.randomness import derived_seed
from llie.engine.settings import Settings


class TinyModel:
    """Two convolutions, with batch norm and dropout if wanted; L1 loss."""

    def __init__(self, dropout: float = 0.0, norm: bool = False):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8) if norm else nn.ReLU()]
        self.networks = {"g": nn.Sequential(*layers, nn.Dropout(dropout), nn.Conv2d(8, 3, 3, padding=1))}
        self.trained = dict(self.networks)

    def to(self, device: torch.device, channels_last: bool) -> None:
        self.networks["g"].to(device)
        if channels_last:
            self.networks["g"].to(memory_format=torch.channels_last)

    def phases(self, iteration: int) -> tuple[str, ...]:
        return ("g",)

    def loss(self, phase: str, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        loss = F.l1_loss(self.trained["g"](batch["lq"]), batch["gt"])
        return loss, {"l1": loss.detach()}


class TinyLoader:
    """Random pairs; image number i is the same whatever the batch size, rank or accumulation.

    Args:
        batch: images per batch of one rank.
        poison: numbers of the batches that hold a NaN.
    """

    def __init__(self, batch: int = 2, rank: int = 0, world: int = 1, poison: tuple[int, ...] = ()):
        self.batch, self.rank, self.world, self.poison = batch, rank, world, poison
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 5

    def batches(self, first: int) -> Generator[dict[str, Any], None, None]:
        number = first
        torch.rand(())  # as PyTorch's loader does: starting must not change what follows
        while True:
            self.asked.append(number)
            start = (number * self.world + self.rank) * self.batch
            items = [self.image(start + i) for i in range(self.batch)]
            lq = torch.stack(items)
            batch = {"lq": lq, "gt": (lq * 2).clamp(max=1), "lq_path": [f"{start + i}.png" for i in range(self.batch)]}
            if number in self.poison:
                batch["lq"] = lq.clone()
                batch["lq"][0, 0, 0, 0] = float("nan")
            yield batch
            number += 1

    @staticmethod
    def image(number: int) -> Tensor:
        return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(derived_seed(7, number)))


def settings(total_iter: int = 10, **changes: Any) -> Settings:
    """A short run."""
    given = {"optimizers": {"g": {"type": "Adam", "lr": 1e-2}}, "print_freq": 2, "save_freq": 4, "seed": 3}
    return Settings(total_iter=total_iter, **(given | changes))


def weights(trainer: Any) -> dict[str, Tensor]:
    """A copy of the trained network's weights."""
    return {key: value.clone() for key, value in trainer.networks["g"].state_dict().items()}
