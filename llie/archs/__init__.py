"""Networks: an image (B, 3, H, W) in [0, 1] goes in, an enhanced one comes out; one file per family; a card per class.

`create_network` builds any of them by name. Weights, models, inference and options call it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from llie.archs.card import Card, blocks_of, card_of, check_controls, controls_of, needs_weights
from llie.registry import ARCH_REGISTRY, build

__all__ = ["Card", "blocks_of", "card_of", "check_controls", "controls_of", "create_network", "needs_weights"]


def create_network(name: str, **arguments: Any) -> nn.Module:
    """A registered network, or a preset of one, with its published main configuration as default.

    Args:
        name: registered class name ("HVISMM") or the name of a preset on a network's card ("mamballie_48").
        **arguments: constructor arguments; they override those of a preset.

    Raises:
        UserError: unknown name or argument; the message names the nearest.

    Example:
        >>> sum(p.numel() for p in create_network("HVISMM").parameters())
        1999617
    """
    options, where = {"type": name, **arguments}, "network"
    for registered, network in ARCH_REGISTRY:
        presets = card_of(network).presets
        if name in presets:
            options, where = {"type": registered, **presets[name], **arguments}, name
    built = build(ARCH_REGISTRY, options, where)
    built.built_from = options  # exported files say what they hold
    return built
