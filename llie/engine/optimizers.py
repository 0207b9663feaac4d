"""Optimisers by their names in torch.optim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from llie.errors import UserError, suggest
from llie.registry import check_arguments


def create_optimizer(
    parameters: Iterable[torch.nn.Parameter], spec: Mapping[str, Any], where: str = "optim_g"
) -> torch.optim.Optimizer:
    """The optimiser that `{type: NAME, lr: ..., **arguments}` describes; any of torch.optim.

    Raises:
        UserError: unknown optimiser or argument.
    """
    known = {
        name: optimizer
        for name, optimizer in vars(torch.optim).items()
        if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)
    }
    name = spec.get("type", "Adam")
    if name not in known:
        raise UserError(f"train.{where}: torch.optim has no {name!r}.{suggest(name, known)}")
    arguments = {key: value for key, value in spec.items() if key != "type"}
    check_arguments(known[name], {"params": None, **arguments}, f"train.{where}")
    return known[name](parameters, **arguments)
