"""Optimisers by their names in torch.optim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from llie.errors import UserError, suggest
from llie.registry import argument_names, check_arguments

# LBFGS evaluates the loss several times per step, SparseAdam needs sparse gradients, Optimizer is the base class.
_UNSUITED = (torch.optim.LBFGS, torch.optim.SparseAdam, torch.optim.Optimizer)
_FORMS = {"fused", "foreach", "differentiable", "capturable"}  # arguments that ask for a form of the same computation


def create_optimizer(
    parameters: Iterable[torch.nn.Parameter], spec: Mapping[str, Any], where: str = "optim_g"
) -> torch.optim.Optimizer:
    """Build the optimiser that `{type: NAME, lr: ..., **arguments}` describes; almost any of torch.optim.

    On CPUs it is the fused form where there is one, unless the arguments say otherwise: three times as fast, with the
    same results but for rounding.

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
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    if on_cpu and "fused" in argument_names(known[name]) and not _FORMS.intersection(arguments):
        arguments["fused"] = True
    optimizer = known[name](parameters, **arguments)
    optimizer.register_load_state_dict_post_hook(_match_layouts)
    return optimizer


def _match_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Bring loaded state into the memory layouts of the weights, because fused forms go through both in step."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
