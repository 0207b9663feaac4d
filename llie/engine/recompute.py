"""Recompute blocks of a network in the backward pass, instead of keeping their maps from the forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from llie.errors import UserError


def recompute(network: nn.Module, blocks: Iterable[str]) -> None:
    """From now on, a step keeps only the inputs of these blocks, and computes their maps again when it needs them.

    Outputs, gradients, random numbers, parameters and their names stay the same. Each of the blocks gets a subclass of
    its class, so a copy of the network behaves in the same way. Evaluation does not change.

    Args:
        network: the bare network (not its DDP or compiled wrapper).
        blocks: names of submodules.

    Raises:
        UserError: a block has batch norm, whose statistics would be updated twice.
    """
    for name in blocks:
        block = network.get_submodule(name)
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in block.modules()):
            raise UserError(
                f"train.checkpoint: {name} of {type(network).__name__} has batch norm, whose statistics would be "
                "updated twice in each step; leave it out of card.blocks"
            )
        block.__class__ = _recomputed(type(block))  # type: ignore[arg-type]


@cache
def _recomputed(block: Any) -> Any:
    class Recomputed(block):
        def forward(self, *inputs: Any, **named: Any) -> Any:
            if self.training and torch.is_grad_enabled():
                return checkpoint(super().forward, *inputs, use_reentrant=False, **named)
            return super().forward(*inputs, **named)

    Recomputed.__name__ = Recomputed.__qualname__ = block.__name__
    return Recomputed
