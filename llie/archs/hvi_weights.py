"""Checkpoints of the HVI family: official names, and the constructor arguments that they imply."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

# Official names -> ours. None of our keys contains an official name, so our own keys pass unchanged.
_RENAMES = {
    "trans.density_k": "density_k",
    "alpha_predictor.predictor.1.": "head.conv_in.",
    "alpha_predictor.predictor.2.": "head.norm.",
    "alpha_predictor.predictor.5.": "head.conv_out.",
    "HVE_block0.1.": "trunk.hv_stem.",
    "IE_block0.1.": "trunk.i_stem.",
    "HVD_block0.1.": "trunk.hv_head.",
    "ID_block0.1.": "trunk.i_head.",
    "HVE_block": "trunk.hv_down",
    "IE_block": "trunk.i_down",
    "HVD_block": "trunk.hv_up",
    "ID_block": "trunk.i_up",
    ".down.0.": ".conv.",
    ".up_scale.0.": ".conv.",
    ".up.": ".merge.",
    ".ffn.": ".attention.",  # officially the attention is called ffn, and the feed-forward layer gdfn
    ".gdfn.": ".enhance.",
}


def official_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The keys of an official checkpoint in our names."""

    def rename(key: str) -> str:
        for official, ours in _RENAMES.items():
            key = key.replace(official, ours)
        return re.sub(r"^(I|HV)_LCA(\d)", lambda match: f"trunk.lca{match[2]}.{match[1].lower()}", key)

    return {rename(key): value for key, value in state.items()}


def detector(factors: int | None) -> Callable[[Mapping[str, Tensor]], dict[str, Any] | None]:
    """A function that reads the constructor arguments from a state dict of the network with that many factors."""

    def detect(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        head = state.get("head.conv_out.weight")
        if "trunk.i_stem.weight" not in state or (None if head is None else len(head)) != factors:
            return None
        convs = ["trunk.i_stem", *(f"trunk.i_down{level}.conv" for level in (1, 2, 3))]
        temperatures = [f"trunk.lca{level}.i.attention.temperature" for level in (1, 2, 3)]
        return {
            "channels": [len(state[f"{conv}.weight"]) for conv in convs],
            "heads": [1, *(len(state[temperature]) for temperature in temperatures)],
            "norm": "trunk.i_down1.norm.weight" in state,
        }

    return detect
