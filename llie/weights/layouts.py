"""The layouts of checkpoints: what networks' weights are wrapped in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from llie.errors import UserError
from llie.weights.files import first

State = dict[str, Tensor]

_CONTAINERS = ("params_ema", "params", "model_state_dict", "state_dict", "model", "net", "network")


def state_dict_of(checkpoint: Mapping[str, Any], prefer: str = "params_ema") -> State:
    """The network's tensors in a checkpoint, whatever it is wrapped in.

    Understood: a bare state dict; BasicSR's `params_ema` and `params`; `model_state_dict`, `state_dict` and the like;
    the prefixes that `DataParallel`, `AveragedModel` (`module.`) and `torch.compile` (`_orig_mod.`) add.

    Args:
        checkpoint: what `read_checkpoint` returned.
        prefer: the entry to take when there are several.

    Raises:
        UserError: it holds no weights; the message lists what it holds.
    """
    for name in (prefer, *_CONTAINERS):
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping) and inner:
            checkpoint = inner
            break
    state = {str(key).replace("_orig_mod.", ""): value for key, value in checkpoint.items()}
    if any(key.startswith("module.") for key in state):
        state.pop("n_averaged", None)
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        kind = "a training state (give the net_g_*.pth beside it)" if "optimizers" in checkpoint else "a checkpoint"
        raise UserError(f"this is {kind} without weights of a network; it holds {first(list(checkpoint), 8)}")
    return state
