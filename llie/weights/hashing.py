"""A hash that identifies the weights of a network, whatever file they came from."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def hash_of_weights(network: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of all parameters and buffers, in the order of their names."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
