"""Which registered network some weights belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from llie.archs.card import card_of
from llie.registry import ARCH_REGISTRY


def identify(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    """Which registered network a state dict belongs to: `(name, constructor arguments)`, or None."""
    for name, network in ARCH_REGISTRY:
        card = card_of(network)
        arguments = card.detect(card.official_keys(state))
        if arguments is not None:
            return name, arguments
    return None
