"""Recognising the registered network that weights belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from llie.archs.card import card_of
from llie.registry import ARCH_REGISTRY
from llie.weights.layouts import State, unwrapped


def identify(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    """The registered network that a state dict belongs to: `(name, constructor arguments)`, or None."""
    found = recognise(state)
    return None if found is None else found[:2]


def recognise(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], State] | None:
    """Like `identify`, and the network's tensors under our names."""
    for share in unwrapped(state):
        for name, network in ARCH_REGISTRY:
            card = card_of(network)
            ours = card.official_keys(share)
            arguments = card.detect(ours)
            if arguments is not None:
                return name, arguments, ours
    return None
