"""Optimisers by their names in torch.optim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from llie.errors import UserError, suggest
from llie.registry import check_arguments

# LBFGS evaluates the loss several times per step, SparseAdam needs sparse gradients, Optimizer is the base class.
_UNSUITED = (torch.optim.LBFGS, torch.optim.SparseAdam, torch.optim.Optimizer)


def create_optimizer(
    parameters: Iterable[torch.nn.Parameter], spec: Mapping[str, Any], where: str = "optim_g"
) -> torch.optim.Optimizer:
    """Build the optimiser that `{type: NAME, lr: ..., **arguments}` describes; almost any of torch.optim.

    Raises:
        UserError: unknown optimiser or argument.
    """
    known = {
        name: optimizer
        for name, optimizer in vars(torch.optim).items()
        if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer) and optimizer not in _UNSUITED
    }
    name = spec.get("type", "Adam")
    if name not in known:
        raise UserError(
            f"train.{where}: no optimiser is called {name!r}.{suggest(name, known)} Known: {', '.join(sorted(known))}"
        )
    if not (parameters := list(parameters)):
        raise UserError(f"train.{where}: the network has no parameters, so there is nothing to train")
    arguments = {key: value for key, value in spec.items() if key != "type"}
    check_arguments(known[name], {"params": None, **arguments}, f"train.{where}")
    return known[name](parameters, **arguments)
