"""Converting checkpoints of any layout to safetensors: only the tensors of the network, under llie's names."""

from __future__ import annotations

import torch
from safetensors.torch import save

from llie.errors import UserError
from llie.weights.files import read_checkpoint
from llie.weights.find import resolve_checkpoint
from llie.weights.identify import recognise
from llie.weights.layouts import state_dict_of


def as_safetensors(source: str, half: bool = False, prefer: str = "params_ema") -> bytes:
    """The weights of a checkpoint as the content of a safetensors file.

    Args:
        source: see `resolve_checkpoint`.
        half: store floating-point tensors as float16.
        prefer: `params_ema` or `params`, if the checkpoint has both.

    Raises:
        UserError: the checkpoint cannot be read, or a weight does not fit float16.
    """
    state = state_dict_of(read_checkpoint(resolve_checkpoint(source)), prefer)
    found = recognise(state)
    state = state if found is None else found[2]
    tensors = {}
    for key, value in state.items():
        tensors[key] = value.half().contiguous() if half and value.is_floating_point() else value.contiguous()
        if not tensors[key].isfinite().all():
            raise UserError(f"{source}: {key} has values beyond the range of float16; convert without --half")
    return save(tensors, {"format": "pt", "torch": torch.__version__, **({"network": found[0]} if found else {})})
