"""Extracting the weights of a network from checkpoints of any layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from llie.errors import UserError
from llie.weights.files import first

State = dict[str, Tensor]

_AVERAGED = ("params_ema", "ema", "model_ema", "ema_state_dict", "state_dict_ema")
_WRAPPERS = ("model", "net", "network", "net_g", "net_G", "netG", "generator")
_CONTAINERS = ("params", "model_state_dict", "state_dict", *_WRAPPERS)
_COUNTERS = ("total_ops", "total_params")  # buffers that thop adds to every module


def state_dict_of(checkpoint: Mapping[str, Any], prefer: str = "params_ema") -> State:
    """The tensors of the network in a checkpoint of any known layout.

    Known layouts: a bare state dict; BasicSR's `params_ema` and `params`; `model_state_dict`, `state_dict`, `ema`,
    `generator` and similar entries, also nested. Removed are the prefixes of `DataParallel`, `AveragedModel`
    (`module.`) and `torch.compile` (`_orig_mod.`), and the counters of thop. For Lightning see `unwrapped`.

    Args:
        checkpoint: content of a checkpoint, from `read_checkpoint`.
        prefer: the entry to use if there are several.

    Raises:
        UserError: it contains no weights; the message lists its contents.
    """
    containers = (*_AVERAGED, *_CONTAINERS) if prefer in _AVERAGED else (*_CONTAINERS, *_AVERAGED)
    state = _find(checkpoint, (prefer, *containers))
    if state is None:
        kind = "a training state (use the net_g_*.pth next to it)" if "optimizers" in checkpoint else "a checkpoint"
        raise UserError(f"this is {kind} without weights of a network; it contains {first(list(checkpoint), 8)}")
    return state


def unwrapped(state: Mapping[str, Tensor]) -> Iterator[State]:
    """A state dict, then parts of it that may be the network: Lightning saves `model.*` or `net_g.*` with the losses.

    Only a comparison with the network can decide: a user's own network may have layers called `model`.
    """
    yield dict(state)
    for wrapper in _WRAPPERS:
        prefix = f"{wrapper}."
        share = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if share:
            yield _without_prefixes(share)


def _find(checkpoint: Mapping[str, Any], containers: tuple[str, ...]) -> State | None:
    for name in containers:
        inner = checkpoint.get(name)
        state = _find(inner, containers) if isinstance(inner, Mapping) else None
        if state:
            return state
    state = _without_prefixes(checkpoint)
    return state if state and all(isinstance(value, Tensor) for value in state.values()) else None


def _without_prefixes(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    state = {str(key).replace("_orig_mod.", ""): value for key, value in checkpoint.items()}
    state = {key: value for key, value in state.items() if key.rpartition(".")[2] not in _COUNTERS}
    if any(key.startswith("module.") for key in state):
        state.pop("n_averaged", None)
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state
