"""Loading weights into a network, under its own key names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from llie.archs.card import card_of
from llie.errors import UserError
from llie.weights.files import first, read_checkpoint
from llie.weights.find import resolve_checkpoint
from llie.weights.identify import identify
from llie.weights.layouts import State, state_dict_of, unwrapped

Network = TypeVar("Network", bound=nn.Module)

Source = str | Path | Mapping[str, Any]


def load_weights(
    network: Network,
    source: Source | Sequence[Source],
    prefer: str = "params_ema",
    strict: bool = True,
    need: Iterable[str] = (),
) -> Network:
    """Load weights into a network, from checkpoints of llie, BasicSR or the official repositories, wrapped or bare.

    Args:
        network: the network, changed in place.
        source: file, run folder, `hf:` name (see `resolve_checkpoint`), or the content of a checkpoint. A network with
            parts on its card accepts a list of sources that each contain one or several parts.
        prefer: `params_ema` or `params`, if the checkpoint has both.
        strict: every tensor must fit; if False, those that fit are loaded and the others keep their values.
        need: parts of the network that the sources must contain.

    Returns:
        The same network.

    Raises:
        UserError: a needed part is missing, or the weights do not fit: the message counts the tensors that are missing,
            unexpected or of another shape, and names the registered network that the checkpoint belongs to.
    """
    sources = [source] if isinstance(source, str | Path | Mapping) else source
    filled = {part for each in sources for part in _load(network, each, prefer, strict)}
    missing = [part for part in need if part not in filled]
    if missing:
        raise UserError(
            f"{type(network).__name__} needs weights for its part {' and '.join(missing)}, but "
            + (f"the given checkpoints contain only {', '.join(sorted(filled))}" if filled else "no weights are given")
            + "; give the checkpoint that contains them, or in an option file a list of checkpoints"
        )
    return network


def _load(network: nn.Module, source: Source, prefer: str, strict: bool) -> set[str]:
    """Load one source of `load_weights`; returns the parts that it contains."""
    where = "the state dict"
    if not isinstance(source, Mapping):
        path = resolve_checkpoint(str(source))
        where, source = f"the checkpoint {path}", read_checkpoint(path)
    given = state_dict_of(source, prefer)
    # The best fit; in a tie the first, which is the whole state dict.
    fit = max((_Fit.of(network, share) for share in unwrapped(given)), key=lambda fit: (fit.whole, len(fit.tensors)))
    if not fit.tensors or (strict and not fit.whole):
        raise UserError(
            f"{where} does not fit {type(network).__name__}: {_difference(fit.own, fit.state)}. {_looks_like(given)}"
        )
    network.load_state_dict(fit.tensors, strict=False)
    return fit.parts


@dataclass(frozen=True)
class _Fit:
    """The fit of a state dict to the parts of a network that it contains: which `tensors` of `state` fit into `own`."""

    own: Mapping[str, Tensor]
    state: State
    parts: set[str]
    tensors: State

    @classmethod
    def of(cls, network: nn.Module, state: State) -> _Fit:
        own = network.state_dict()
        if state.keys() != own.keys():
            state = card_of(network).official_keys(state)
        parts = {key.split(".")[0] for key in state}.intersection(card_of(network).parts)
        if parts:
            own = {key: value for key, value in own.items() if key.split(".")[0] in parts}
        fits = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
        return cls(own, state, parts, fits)

    @property
    def whole(self) -> bool:
        return len(self.tensors) == max(len(self.own), len(self.state))


def _difference(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """The number and the first names of the tensors that do not fit, by kind of mistake."""
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} ({tuple(state[key].shape)} in the checkpoint, {tuple(own[key].shape)} in the network)"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    kinds = ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
    return "; ".join(f"{len(keys)} of {len(own)} tensors {kind}: {first(keys)}" for keys, kind in kinds if keys)


def _looks_like(state: Mapping[str, Tensor]) -> str:
    found = identify(state)
    if found is None:
        return "It does not look like any registered network"
    name, arguments = found
    return f"It looks like {name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
