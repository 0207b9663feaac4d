"""Exponential moving average of a network: parameters are averaged, buffers (batch-norm statistics) are copied."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """A second copy of the network, updated as `ema = decay * ema + (1 - decay) * network`.

    Args:
        network: the bare network (not its DDP or compiled wrapper).
        decay: between 0 (no averaging) and 1 (never changes); 0.999 is usual.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Update the average with the network's current weights."""
        own = [p.detach() for p in self.network.parameters()]
        torch._foreach_lerp_(own, [p.detach() for p in network.parameters()], 1 - self.decay)  # one kernel for all
        for buffer, new in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(new)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged network's state."""
        return self.network.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a stored average."""
        self.network.load_state_dict(state)
