"""The interfaces that the trainer requires of its model and loader."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Batch = dict[str, Any]


class Trainable(Protocol):
    """A model: networks, and the loss of each phase of a step (see `llie.models.base.Model`).

    Attributes:
        networks: bare networks by name; "g" is the one that is validated.
        trained: the same networks, wrapped by the trainer (DDP, compiled).
    """

    networks: dict[str, nn.Module]
    trained: dict[str, nn.Module]

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Move networks and losses."""

    def phases(self, iteration: int) -> tuple[str, ...]:
        """Names of the networks to update in this iteration, in order; at least one."""

    def loss(self, phase: str, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the phase's network, and values to log; no other network may get gradients from it."""


class Loader(Protocol):
    """An endless stream of batches; the n-th is a pure function of (seed, n, rank, world size)."""

    def __len__(self) -> int:
        """Batches in one epoch."""

    def batches(self, first: int) -> Generator[Batch, None, None]:
        """The batches from number `first` on; closing the generator stops its worker processes."""
