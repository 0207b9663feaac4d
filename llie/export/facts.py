"""What an exported file says about itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from llie import __version__
from llie.archs import card_of
from llie.errors import UserError
from llie.export.graph import Graph

# What people may rely on to find in a file of ours.
NETWORK, CONTROLS = "network", "controls"


def facts_of(graph: Graph, licence: str = "") -> dict[str, str]:
    """Facts about an exported network, as text: JSON where a fact has parts.

    Args:
        graph: what is exported.
        licence: of the weights, in the user's words.
    """
    network = graph.network
    built_from = dict(getattr(network, "built_from", {}))
    return {
        NETWORK: str(built_from.pop("type", type(network).__name__)),
        "arguments": json.dumps(built_from, default=str),
        "weights_sha256": weights_hash(network),
        "licence": licence or "not stated",
        "paper": card_of(network).paper,
        "size_multiple": str(card_of(network).size_multiple),
        "sizes": "any; the graph pads to the multiple and crops",
        "input_range": "RGB in [0, 1], (batch, 3, height, width), float32",
        "output_range": "RGB in [0, 1], the size of the input, float32",
        CONTROLS: json.dumps(graph.numbers),
        "fixed": json.dumps(graph.fixed, default=str),
        "made_by": f"llie {__version__}, PyTorch {torch.__version__}",
    }


def weights_hash(network: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of all weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def controls_in(facts: Mapping[str, Any], source: str) -> dict[str, float]:
    """The controls that a file names, and their defaults.

    Raises:
        UserError: the entry is damaged.
    """
    try:
        return {str(name): float(value) for name, value in json.loads(facts.get(CONTROLS) or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{source}: its list of controls is damaged; export it again") from None
