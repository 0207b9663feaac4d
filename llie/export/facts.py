"""The metadata of exported files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from llie import __version__
from llie.archs import card_of
from llie.errors import UserError
from llie.export.graph import Graph
from llie.weights import hash_of_weights

# Entries that llie itself reads.
NETWORK, CONTROLS = "network", "controls"


def facts_of(graph: Graph, licence: str = "") -> dict[str, str]:
    """Metadata of an exported network: name -> text, which is JSON where an entry has several values.

    Args:
        graph: what is exported.
        licence: licence of the weights, as the user writes it.
    """
    network = graph.network
    built_from = dict(getattr(network, "built_from", {}))
    return {
        NETWORK: str(built_from.pop("type", type(network).__name__)),
        "arguments": json.dumps(built_from, default=str),
        "weights_sha256": hash_of_weights(network),
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


def controls_in(facts: Mapping[str, Any], source: str) -> dict[str, float]:
    """The controls in a file's metadata, and their defaults.

    Args:
        facts: the metadata.
        source: name of the file, for the message.

    Raises:
        UserError: the entry is damaged.
    """
    try:
        return {str(name): float(value) for name, value in json.loads(facts.get(CONTROLS) or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{source}: its list of controls is damaged; export it again") from None
