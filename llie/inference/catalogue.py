"""The list of networks for `llie models`."""

from __future__ import annotations

import textwrap

import torch
from torch import nn

from llie.archs import card_of, controls_of
from llie.errors import UserError
from llie.registry import ARCH_REGISTRY, build


def table() -> str:
    """One entry per registered network: parameters, paper, presets and test-time controls."""
    entries = []
    for name, network in ARCH_REGISTRY:
        card = card_of(network)
        facts = {
            "paper": card.paper,
            "url": card.url,
            "presets": ", ".join(card.presets),
            "controls": ", ".join(controls_of(network)),
            "weights": "" if card.learned else "none needed",
        }
        lines = [f"{name}  ({parameters(name)} parameters)"]
        for label, text in facts.items():
            lines += textwrap.wrap(
                text,
                width=100,
                initial_indent=f"    {label:10}",
                subsequent_indent=" " * 14,
                break_long_words=False,
                break_on_hyphens=False,  # addresses must not be split
            )
        entries.append("\n".join(lines))
    return "\n\n".join(entries)


def parameters(name: str) -> str:
    """Number of parameters of a network with its default arguments, without allocating them."""
    try:
        with torch.device("meta"):
            network: nn.Module = build(ARCH_REGISTRY, {"type": name})
    except (UserError, TypeError, NotImplementedError):  # it needs arguments, or its constructor computes with tensors
        return "depends on its arguments:"
    return f"{sum(p.numel() for p in network.parameters()):,}"
